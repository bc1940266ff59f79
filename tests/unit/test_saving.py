"""`vmrun.checkpoint` and `vmrun.restored`, as a task calls them."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

import vmrun
from vmrun import saving
from vmrun.core.errors import UsageError
from vmrun.core.parcels import APART


@pytest.fixture
def states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a machine on which this process is task 7."""
    monkeypatch.setenv("VMRUN_CHECKPOINTS", str(tmp_path))
    monkeypatch.setenv("VMRUN_TASK", "7")
    return tmp_path


def test_the_last_state_is_restored(states: Path) -> None:
    assert vmrun.restored() is None
    assert vmrun.restored("nothing") == "nothing"
    vmrun.checkpoint({"step": 1})
    vmrun.checkpoint({"step": 2, "f": lambda x: x + 1})
    found = vmrun.restored()
    assert (found["step"], found["f"](1)) == (2, 2)
    assert os.listdir(states) == ["7"]


def test_large_buffers_come_back_writable(states: Path) -> None:
    array = bytearray(os.urandom(3 * APART))
    vmrun.checkpoint([array, bytearray(b"small")])
    large, small = vmrun.restored()
    assert (large, small) == (array, b"small")
    large[0] ^= 255
    assert vmrun.restored()[0] == array


def test_each_task_has_its_own(states: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vmrun.checkpoint("of 7")
    monkeypatch.setenv("VMRUN_TASK", "8")
    assert vmrun.restored() is None
    vmrun.checkpoint("of 8")
    monkeypatch.setenv("VMRUN_TASK", "7")
    assert vmrun.restored() == "of 7"


@pytest.mark.parametrize("missing", ["VMRUN_CHECKPOINTS", "VMRUN_TASK"])
def test_outside_of_a_task_nothing_is_saved(states: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.delenv(missing)
    vmrun.checkpoint("lost")
    assert vmrun.restored("the beginning") == "the beginning"
    assert list(states.iterdir()) == []


def test_a_state_that_cannot_be_saved_leaves_the_last_one(states: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vmrun.checkpoint("small")
    monkeypatch.setattr(saving, "STATE_MAX", 10_000)
    with pytest.raises(UsageError, match="more than 10 kB"):
        vmrun.checkpoint(os.urandom(20_000))
    with pytest.raises(TypeError, match="pickle"):
        vmrun.checkpoint(threading.Lock())
    assert vmrun.restored() == "small"
    assert os.listdir(states) == ["7"]


def test_a_file_of_somebody_else_is_not_unpickled(states: Path) -> None:
    (states / "7").write_text("42\n")
    with pytest.raises(UsageError, match=r"not written by vmrun\.checkpoint"):
        vmrun.restored()
