"""`vmrun reap --every`: the reaper as a service of this process."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from vmrun.core.errors import UsageError
from vmrun.core.units import format_duration, parse_duration
from vmrun.reaper.notify import Notifier
from vmrun.reaper.service import Health, Pass, Service, Stop
from vmrun.rendering import reaping

from .session import Session

#: Seconds between passes at least: clouds count requests.
SHORTEST = 1.0


def run(session: Session, every: str, lasting: str | None, health_file: Path | None, *, dry_run: bool) -> int:
    """Pass again and again until SIGTERM or Ctrl-C, or for a while; the exit code."""
    seconds = parse_duration(every, "--every")
    if seconds < SHORTEST:
        raise UsageError(f"--every {every} is too short", hint=f"at least {format_duration(SHORTEST)}; 60s is usual")
    client, stop = session.client, Stop()
    service = Service(
        sweep=lambda note, stopping: client.reap(dry_run=dry_run, on_stage=note, stopping=stopping),
        every=seconds,
        clock=session.clock,
        notifier=Notifier(os.environ, session.clock),
        report=lambda done: _report(session, done, dry_run=dry_run),
        stop=stop,
        health=Health(health_file.absolute(), session.clock, seconds) if health_file is not None else None,
        lasting=float("inf") if lasting is None else parse_duration(lasting, "--for"),
    )
    before = {number: signal.signal(number, stop.ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        service.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _report(session: Session, done: Pass, *, dry_run: bool) -> None:
    if session.as_json:
        session.screen.document(reaping.document(done, dry_run=dry_run))
    else:
        session.screen.lines(reaping.lines(done, dry_run=dry_run))
