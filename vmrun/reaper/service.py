"""The reaper as a service: one pass after the other with the same memory, whatever the store and the clouds do."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vmrun.core.clock import Clock
from vmrun.core.errors import ConfigError, UsageError, VmrunError
from vmrun.core.views import Verdict

from .notify import Notifier

log = logging.getLogger(__name__)

#: Seconds between passes at most, after however many that failed.
LONGEST = 900.0
#: Seconds in which a request to stop is noticed between passes.
SLICE = 0.25
_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass and what came of it."""

    number: int
    #: Seconds since the epoch.
    began: float
    #: How long it took.
    seconds: float
    verdicts: Sequence[Verdict] = ()
    #: What could not be done, in words.
    notes: Sequence[str] = ()
    #: Why there are no verdicts.
    error: VmrunError | None = None
    #: Verdicts that are other than in the pass before.
    news: Sequence[Verdict] = ()

    @property
    def deleted(self) -> int:
        """How many verdicts were to delete."""
        return sum(verdict.delete for verdict in self.verdicts)


@dataclass
class Stop:
    """Whether somebody asked the service to stop; set by a signal handler."""

    asked: bool = False

    def ask(self, *_: object) -> None:
        """Stop at the next occasion."""
        self.asked = True


#: Makes one pass: told whom to tell what could not be done, and whom to ask between steps whether to stop.
Sweep = Callable[[Callable[[str], None], Callable[[], bool]], list[Verdict]]


@dataclass
class Service:
    """Passes at intervals until it is told to stop, or for a given time."""

    sweep: Sweep
    every: float
    clock: Clock
    notifier: Notifier
    report: Callable[[Pass], None]
    stop: Stop
    health: Health | None = None
    #: Seconds after which no further pass begins.
    lasting: float = float("inf")
    _before: dict[tuple[str, str, str], Verdict] = field(default_factory=dict)

    def run(self) -> int:
        """How many passes were made. Raises ConfigError or UsageError of the first pass: nothing would ever work."""
        began, number, failures = self.clock.monotonic(), 0, 0
        self.notifier.ready()
        try:
            while not self.stop.asked:
                number += 1
                done = self._pass(number)
                failures = failures + 1 if done.error is not None else 0
                self._tell(done, failures)
                if number == 1 and isinstance(done.error, UsageError):
                    raise done.error
                if not self._wait(pause(self.every, failures), began + self.lasting):
                    break
        finally:
            self.notifier.stopping()
            if self.health is not None:
                self.health.stopped()
        return number

    def _pass(self, number: int) -> Pass:
        began, since = self.clock.now(), self.clock.monotonic()
        notes: list[str] = []
        error: VmrunError | None = None
        verdicts: list[Verdict] = []
        try:
            verdicts = self.sweep(notes.append, self._between)
        except VmrunError as caught:
            error = caught
        after = {(each.vm, each.policy, each.reason if each.delete else ""): each for each in verdicts}
        news = [each for key, each in after.items() if key not in self._before]
        if error is None:
            self._before = after
        return Pass(number, began, self.clock.monotonic() - since, verdicts, notes, error, news)

    def _between(self) -> bool:
        self.notifier.alive()
        return self.stop.asked

    def _tell(self, done: Pass, failures: int) -> None:
        self.report(done)
        self.notifier.status(summary(done))
        if self.health is None:
            return
        try:
            self.health.note(done, failures)
        except ConfigError as error:
            # A disk that is full for a while must not cost the service what it has seen of VMs, or VMs their reaper.
            if done.number == 1:
                raise
            log.warning("event=health-not-written error=%s", error.message)

    def _wait(self, seconds: float, end: float) -> bool:
        """Wait for the next pass; False if there is to be none."""
        due = self.clock.monotonic() + seconds
        if due >= end:
            return False
        while not self.stop.asked and (left := due - self.clock.monotonic()) > 0:
            self.notifier.alive()
            self.clock.sleep(min(SLICE, left))
        return not self.stop.asked


def pause(every: float, failures: int) -> float:
    """Seconds until the next pass, after that many in a row that failed."""
    return every if not failures else max(every, min(every * (1 << min(failures, 16)), LONGEST))


def summary(done: Pass) -> str:
    """The pass in a few words."""
    if done.error is not None:
        return f"pass {done.number} failed: {done.error.message}"
    return f"pass {done.number}: {len(done.verdicts)} judged, {done.deleted} deleted"


class Health:
    """A file that says when the last pass was and how it went, for whoever watches the service."""

    def __init__(self, path: Path, clock: Clock, every: float) -> None:
        self._path = path
        self._clock = clock
        self._told: dict[str, Any] = {"schema": _SCHEMA, "ok": True, "pid": os.getpid(), "every": every}
        self._told |= {"running": True, "passes": 0, "failures": 0, "last_pass": None, "last_good": None}

    def note(self, done: Pass, failures: int) -> None:
        """Write what the last pass came to. Raises ConfigError if the file cannot be written."""
        error = done.error
        self._told |= {
            "ok": error is None,
            "passes": done.number,
            "failures": failures,
            "last_pass": done.began,
            "seconds": round(done.seconds, 3),
            "vms": len(done.verdicts),
            "deleted": done.deleted,
            "notes": list(done.notes),
            "error": {"code": error.code, "message": error.message, "hint": error.hint} if error else None,
        }
        if error is None:
            self._told["last_good"] = done.began
        self._write()

    def stopped(self) -> None:
        """Write that there will be no further pass. That it cannot be written is no reason not to stop."""
        self._told["running"] = False
        with contextlib.suppress(ConfigError):
            self._write()

    def _write(self) -> None:
        """Whole or not at all: a reader sees the state before, or this one."""
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            temporary.write_text(json.dumps(self._told) + "\n", "utf-8")
            os.replace(temporary, self._path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise ConfigError(
                f"the health file {self._path} cannot be written: {error.strerror}",
                hint="choose another --health-file, in a directory that exists",
            ) from error
