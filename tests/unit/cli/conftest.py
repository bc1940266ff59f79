"""Runs command lines in this process."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.fakes import FakeClient, ManualClock
from vmrun.cli import run
from vmrun.commands import app


@dataclass(frozen=True)
class Done:
    """A command line that has run."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on stdout."""
        assert self.out.count("\n") == 1, self.out
        document = json.loads(self.out)
        assert document["schema"] == 1
        # A result that was asked for is there, also when it tells of failures by the exit code 6.
        assert document["ok"] is (self.code == 0 or "results" in document)
        return document


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


#: A process of vmrun builds one verb, once. Here hundreds of calls share them: to build one takes as long as the rest.
build_verb = functools.cache(app.build_verb)


@pytest.fixture
def vmrun(
    client: FakeClient,
    clock: ManualClock,
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Done]:
    """`vmrun(*arguments)` against the fake."""
    del here
    monkeypatch.setattr(app, "build_verb", build_verb)

    def call(*arguments: str) -> Done:
        capsys.readouterr()
        code = run(arguments, connect=lambda: client, clock=clock)  # type: ignore[arg-type,return-value]
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return call
