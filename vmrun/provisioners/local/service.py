"""One run of the agent with all processes that descend from it: for a local machine what a unit is for systemd.

The run is watched by a process of its own, forked from the guardian. The two guard each other: if the guardian
is killed, the kernel tells this process, which kills the run; if this process is killed, the kernel kills the
agent, and the guardian inherits and kills the rest.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence

from vmrun.core.clock import Clock

from . import processes

#: Seconds within which killed processes must be gone.
KILL_SECONDS = 10.0
#: Exit codes of this process when the agent has none to tell.
CANNOT_RUN, STOPPED, BROKEN = 127, 124, 70
#: Bytes of the agent's log after which it moves to `<name>.1`.
_LOG_LIMIT = 1 << 20
#: Seconds between two looks at whether the guardian is still there, should its death go unannounced.
_PARENT_PAUSE = 1.0
_TOLD = (signal.SIGTERM, signal.SIGCHLD)


def start(argv: Sequence[str], log_path: str, flush_grace: float, clock: Clock) -> int:
    """Start the agent; the number of the process that watches it, a child of this one.

    That process ends when the agent and all its descendants are gone, with the agent's exit code (128 + n after
    signal n). On SIGTERM it passes that on to the agent's process group and kills what is left after
    `flush_grace` seconds.
    """
    guardian = os.getpid()
    # A signal that arrives before the child has its own bell must not be lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, _TOLD)
    try:
        pid = os.fork()
        if pid == 0:
            _main(_Run(guardian, log_path, flush_grace, clock), argv)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _TOLD)
    return pid


def _main(run: _Run, argv: Sequence[str]) -> None:
    code = BROKEN
    try:
        code = run.run(argv)
    except BaseException as error:  # noqa: BLE001 - the boundary of a process, which must not return into its parent
        os.write(2, f"vmrun: the agent's watcher failed: {error!r}\n".encode())
    finally:
        os._exit(code)


class _Run:
    """The state of one run, in the process that watches it."""

    def __init__(self, guardian: int, log_path: str, flush_grace: float, clock: Clock) -> None:
        self._guardian = guardian
        self._log = BoundedLog(log_path, _LOG_LIMIT)
        self._flush_grace = flush_grace
        self._clock = clock
        self._agent = 0
        self._pipe = -1

    def run(self, argv: Sequence[str]) -> int:
        processes.adopt_orphans()
        if not processes.die_with_parent(self._guardian, signal.SIGTERM):
            return STOPPED
        bell = processes.Bell(*_TOLD)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _TOLD)
        self._pipe, output = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._pipe, False)
        try:
            self._agent = processes.spawn(argv, os.environ, output)
        except OSError as error:
            self._log.write(f"vmrun: the agent cannot be run: {error}\n".encode())
            return CANNOT_RUN
        os.close(output)
        try:
            return self._watch(bell)
        finally:
            me = os.getpid()
            processes.kill_all(lambda: processes.descendants(me), self._clock, KILL_SECONDS)
            self._copy_output()

    def _watch(self, bell: processes.Bell) -> int:
        """Wait for the end of the agent, or of the patience with it; the exit code."""
        kill_at = float("inf")
        while True:
            remaining = kill_at - self._clock.monotonic()
            bell.wait(min(_PARENT_PAUSE, remaining), *([self._pipe] if self._pipe >= 0 else []))
            self._copy_output()
            code = processes.reap().get(self._agent)
            if code is not None:
                return code if code >= 0 else 128 - code
            if remaining <= 0 or os.getppid() != self._guardian:
                return STOPPED
            if bell.heard(signal.SIGTERM) and kill_at == float("inf"):
                kill_at = self._clock.monotonic() + self._flush_grace
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._agent, signal.SIGTERM)

    def _copy_output(self) -> None:
        """Move what the agent printed so far to its log; at most a little over a pipe's capacity at once."""
        for _ in range(4):
            try:
                data = os.read(self._pipe, 1 << 16) if self._pipe >= 0 else b""
            except BlockingIOError:
                return
            if not data:
                if self._pipe >= 0:
                    os.close(self._pipe)
                self._pipe = -1
                return
            self._log.write(data)


class BoundedLog:
    """A file that keeps the newest output: at `limit` bytes it moves to `<path>.1`, replacing that."""

    def __init__(self, path: str, limit: int) -> None:
        self._path = path
        self._limit = limit

    def write(self, data: bytes) -> None:
        """Append; what cannot be written (a full disk) is dropped, for the agent must not be held up by its log."""
        with contextlib.suppress(OSError):
            with open(self._path, "ab", opener=_private) as file:
                if file.tell() and file.tell() + len(data) > self._limit:
                    os.rename(self._path, f"{self._path}.1")
                else:
                    file.write(data)
                    return
            with open(self._path, "ab", opener=_private) as file:
                file.write(data)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
