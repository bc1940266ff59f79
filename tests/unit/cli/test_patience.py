"""What is waited for is said when it takes long, and not otherwise."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.shell import until
from tests.unit.cli.fakes import ManualClock
from vmrun.commands.patience import patience


class Terminal:
    """Takes notes."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.heard = threading.Event()

    def note(self, text: str) -> None:
        self.said.append(text)
        self.heard.set()


def session(screen: Terminal) -> Any:
    return SimpleNamespace(screen=screen, clock=ManualClock())


def test_the_step_that_takes_long_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmrun.commands.patience.NEXT", 0.01)
    screen = Terminal()
    with patience(session(screen), "reading the job", first=0.01) as step:
        # Before the first step is told, what is said may be that the job is being read
        step("asking ec2 what it offers")
        screen.heard.clear()
        until(lambda: screen.heard.wait(1.0) and screen.said[-1].endswith("offers"), 60, "the step is said")
    assert screen.said[-1] == "after 0 s still asking ec2 what it offers"
    assert set(screen.said[:-1]) <= {"after 0 s still reading the job", screen.said[-1]}


def test_quick_work_says_nothing_and_leaves_no_thread() -> None:
    screen = Terminal()
    with patience(session(screen), "reading the job", first=60.0) as step:
        step("asking ec2 what it offers")
    assert screen.said == []
    assert "vmrun-patience" not in [thread.name for thread in threading.enumerate()]
