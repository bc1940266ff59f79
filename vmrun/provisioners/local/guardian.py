"""The guardian of one local machine: what systemd and the dead-man timer are to a VM.

    python -m vmrun.provisioners.local.guardian DIRECTORY [LOCK_DESCRIPTOR]

It starts the agent when its command appears in the directory, starts it again when it fails, and ends the machine
when the agent is done (exit code 0), when lease or hard deadline has passed, when it cannot read them, or when it is
told to (SIGTERM). Ending leaves no process and no directory, only a short record of why.

Everything it will ever need is loaded when it starts: it must be able to end a machine whose disk is full or whose
installation of vmrun was removed in the meantime.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence

from vmrun.core.clock import Clock, SystemClock

from . import config, layout, processes, rules, service

#: Exit codes: another guardian has the machine; the machine cannot be guarded.
BUSY, UNUSABLE = 75, 78
#: Seconds between two looks at the directory until the agent was started: what a client waits for.
_START_POLL = 0.02
#: Seconds beyond the agent's own grace that its watcher gets to end.
_WATCHER_GRACE = service.KILL_SECONDS + 2.0


class Guardian:
    """One machine and what is known of it."""

    def __init__(self, directory: str, settings: config.GuardianConfig, clock: Clock) -> None:
        self._directory = directory
        self._settings = settings
        self._clock = clock
        self._bell = processes.Bell(signal.SIGTERM, signal.SIGCHLD)
        self._identity = _identity(".")
        # The wall clock may be set back; the machine's lifetime may not grow by that.
        self._latest_monotonic = clock.monotonic() + settings.hard_deadline - clock.now()
        self._restarts = rules.Restarts()
        self._service = 0
        self._start_at = 0.0
        self._done = ""

    def run(self) -> str:
        """Guard the machine until it must end; why it must."""
        while True:
            self._tend()
            why = self._must_end()
            if why:
                return why
            self._bell.wait(self._settings.poll if self._service else min(_START_POLL, self._settings.poll))

    def _must_end(self) -> str:
        if self._bell.heard(signal.SIGTERM):
            return "deleted"
        if not self._is_there():
            return "its directory is gone"
        if self._clock.monotonic() >= self._latest_monotonic:
            return "maximum lifetime reached"
        return self._done or rules.must_end(
            self._clock.now(),
            hard=layout.read_text(f"{self._directory}/{layout.HARD_DEADLINE}"),
            lease=layout.read_text(f"{self._directory}/{layout.LEASE}"),
            latest=self._settings.hard_deadline,
        )

    def _is_there(self) -> bool:
        """Whether the directory is still the one that this guardian was started in."""
        return self._identity is not None and _identity(self._directory) == self._identity

    def _tend(self) -> None:
        """Note the end of a run, and start the agent when it is time to."""
        code = processes.reap().get(self._service) if self._service else None
        if code is not None:
            self._note_end(code)
        if not self._service and not self._done and self._clock.monotonic() >= self._start_at:
            self._start()

    def _note_end(self, code: int) -> None:
        self._service = 0
        self._kill_descendants()
        _log(self._clock, "agent-ended", code=code)
        if code == 0:
            self._done = "drained"
            return
        again = self._restarts.after_failure(self._clock.monotonic())
        if again is None:
            self._done = f"the agent failed {rules.Restarts.LIMIT + 1} times, last with exit code {code}"
        else:
            self._start_at = again

    def _start(self) -> None:
        path = f"{self._directory}/{layout.AGENT_ARGV}"
        if not os.path.lexists(path):
            return
        argv = _argv(layout.read_text(path))
        if not argv:
            self._done = f"{layout.AGENT_ARGV} is not a list of strings"
            return
        log_path = f"{self._directory}/{layout.AGENT_LOG}"
        self._service = service.start(argv, log_path, self._settings.flush_grace, self._clock)
        _log(self._clock, "agent-started", watcher=self._service)

    def end(self, why: str) -> None:
        """End the machine: no process and no directory is left."""
        _log(self._clock, "ending", why=why)
        with contextlib.suppress(OSError):
            if self._is_there():
                layout.write_text(f"{self._directory}/{layout.WHY}", why)
        self._stop_service()
        self._kill_descendants()
        parent, name = os.path.split(self._directory)
        with contextlib.suppress(OSError):
            layout.record_end(os.path.dirname(parent), name, why, self._clock.now())
        if self._is_there():
            layout.remove_machine(self._directory)

    def _stop_service(self) -> None:
        """Have the agent told to end, and wait for it as long as it may take."""
        if not self._service:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._service, signal.SIGTERM)
        deadline = self._clock.monotonic() + self._settings.flush_grace + _WATCHER_GRACE
        while self._service not in processes.reap() and self._clock.monotonic() < deadline:
            self._bell.wait(min(1.0, deadline - self._clock.monotonic()))

    def _kill_descendants(self) -> None:
        me = os.getpid()
        if not processes.kill_all(lambda: processes.descendants(me), self._clock, service.KILL_SECONDS):
            _log(self._clock, "processes-left", count=len(processes.descendants(me)))


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _argv(text: str | None) -> list[str]:
    """The agent's command; empty when the file holds none."""
    try:
        value = json.loads(text or "null")
    except (ValueError, RecursionError):
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) and "\0" not in item for item in value):
        return []
    return value


def _log(clock: Clock, event: str, **facts: object) -> None:
    """One JSON line on standard error, which is the guardian's log."""
    with contextlib.suppress(OSError):
        os.write(2, (json.dumps({"at": round(clock.now(), 3), "event": event, **facts}) + "\n").encode())


def _detach() -> int:
    """Go on in a grandchild of the caller, in a session of its own; the descriptor on which to say "ready".

    The process that the caller started stays until that word, and ends with 0 if it came.
    """
    told, tell = os.pipe2(os.O_CLOEXEC)
    if os.fork():
        os.close(tell)
        os._exit(0 if os.read(told, 1) else UNUSABLE)
    os.close(told)
    os.setsid()
    return tell


def main(arguments: Sequence[str]) -> int:
    """Guard the machine in the directory that is the first argument; the exit code.

    The second argument is a descriptor that holds the machine's lock already.
    """
    clock = SystemClock()
    # A client may have blocked signals that the guardian must hear.
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    directory = os.path.abspath(arguments[0])
    os.chdir(directory)
    lock = int(arguments[1]) if len(arguments) > 1 else layout.take_lock(directory)
    if lock is None:
        return BUSY
    os.set_inheritable(lock, False)
    ready = _detach()
    processes.adopt_orphans()
    me = processes.find(os.getpid())
    assert me is not None
    try:
        settings = config.parse(layout.read_text(layout.USER_DATA) or "")
    except ValueError as error:
        _log(clock, "unusable", why=f"{layout.USER_DATA}: {error}")
        return UNUSABLE
    guardian = Guardian(directory, settings, clock)
    layout.write_text(layout.GUARDIAN, json.dumps(processes.to_record(me)))
    os.write(ready, b"1")
    os.close(ready)
    try:
        why = guardian.run()
    except Exception as error:  # noqa: BLE001 - the boundary of a process: a guardian that fails must end its machine
        why = f"the guardian failed: {error!r}"
    guardian.end(why)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
