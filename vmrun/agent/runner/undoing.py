"""What a task sets for its whole process by calls that can be noticed: signals, timers, limits, cores. Undone after it.

A timer that is left running would end a later task, a lowered limit fail it, and a child process of it would inherit
what its predecessor ignored. A task that makes none of these calls costs nothing here.
"""

from __future__ import annotations

import faulthandler
import functools
import os
import resource
import signal
from collections.abc import Callable
from typing import Any

#: As they are before anything is noticed.
_signal, _setitimer, _sigmask = signal.signal, signal.setitimer, signal.pthread_sigmask
_setrlimit, _setaffinity = resource.setrlimit, os.sched_setaffinity
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_LIMITS = tuple(getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_"))

#: Makes of a function one whose calls are known of; see `Guard`.
Noticed = Callable[[Callable[..., Any]], Callable[..., Any]]


class Undoing:
    """Takes over the functions that change such things, in the process it is made in."""

    def __init__(self, noticed: Noticed) -> None:
        #: What is to be undone. Empty as long as no task has called any of the functions.
        self.due: set[Callable[[], bool]] = set()
        for module, names, undo in (
            (signal, ("signal",), self._undo_handlers),
            (signal, ("pthread_sigmask",), self._undo_mask),
            (signal, ("alarm", "setitimer"), self._undo_timers),
            (faulthandler, ("dump_traceback_later",), self._undo_dump),
            (resource, ("setrlimit", "prlimit"), self._undo_limits),
            (os, ("sched_setaffinity",), self._undo_cores),
        ):
            for name in names:
                setattr(module, name, noticed(self._watched(getattr(module, name), undo)))
        self._keep()

    def _watched(self, function: Callable[..., Any], undo: Callable[[], bool]) -> Callable[..., Any]:
        due = self.due

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            due.add(undo)
            return function(*args, **kwargs)

        return call

    def keep(self) -> None:
        """What is set now stays: the function's modules set it while they were loaded."""
        if self.due:
            self._keep()

    def _keep(self) -> None:
        self._handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
        self._mask = _sigmask(signal.SIG_BLOCK, ())
        #: Those that do not run.
        self._timers = [which for which in _TIMERS if not any(signal.getitimer(which))]
        self._limits = {which: resource.getrlimit(which) for which in _LIMITS}
        self._cores = os.sched_getaffinity(0)
        self.due.clear()

    def undo(self) -> bool:
        """Put back what was changed; False if that cannot be done and this process is of no more use."""
        done = True
        for undo in list(self.due):
            try:
                done = undo() and done
            except (OSError, ValueError):  # a lowered hard limit, cores that were taken away
                done = False
        self.due.clear()
        return done

    def _undo_handlers(self) -> bool:
        for number, handler in self._handlers.items():
            # None: it was not set from Python, and cannot be.
            if handler is not None and signal.getsignal(number) is not handler:
                _signal(number, handler)
        return True

    def _undo_mask(self) -> bool:
        _sigmask(signal.SIG_SETMASK, self._mask)
        return True

    def _undo_timers(self) -> bool:
        for which in self._timers:
            _setitimer(which, 0)
        return True

    def _undo_dump(self) -> bool:
        faulthandler.cancel_dump_traceback_later()
        return True

    def _undo_limits(self) -> bool:
        """Those that were lowered; a higher one harms nobody, and what raised it may count on it."""
        for which, limits in self._limits.items():
            if any(map(_less, resource.getrlimit(which), limits)):
                _setrlimit(which, limits)
        return True

    def _undo_cores(self) -> bool:
        _setaffinity(0, self._cores)
        return True


def _less(one: int, other: int) -> bool:
    """Whether the first limit is the tighter one."""
    if one == resource.RLIM_INFINITY:
        return False
    return other == resource.RLIM_INFINITY or one < other
