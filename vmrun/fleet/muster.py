"""Several machines for one job, got at the same time: the first that is ready counts, the others join it.

Each is got in a thread of its own, of which no more than a few run at once. What one of them learns of offers that are
not to be had, the others know too. All can be told to stop; what is half made is given back then.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from vmrun.core.clock import Clock
from vmrun.core.errors import CapacityError, VmrunError

from .deck import OnStage

log = logging.getLogger(__name__)

#: Machines that are got at the same time.
AT_ONCE = 16
#: Seconds between looks at whether somebody said stop, and of waits that a person may interrupt.
TICK = 0.2
#: Seconds that those that are told to stop may take to give back what they have.
STOP_PATIENCE = 120.0

#: Gets one machine: told whom to tell of stages, and by which clock to wait, which ends its waits by Stopped. Its id.
Recruit = Callable[[OnStage, Clock], str]


class Stopped(BaseException):
    """Nobody wants the machine any more. No handler of errors on the way up may take it for one of its own."""


class StoppableClock:
    """A clock whose waits end, by Stopped, once `stop` is set."""

    def __init__(self, clock: Clock, stop: threading.Event) -> None:
        self._clock = clock
        self._stop = stop

    def now(self) -> float:
        """As the clock beneath."""
        return self._clock.now()

    def monotonic(self) -> float:
        """As the clock beneath."""
        return self._clock.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait, or raise Stopped."""
        until = self._clock.monotonic() + seconds
        while (left := until - self._clock.monotonic()) > 0:
            if self._stop.is_set():
                raise Stopped
            self._clock.sleep(min(left, TICK))


class Muster:
    """`count` machines on their way to one job."""

    def __init__(self, recruit: Recruit, count: int, clock: Clock, on_stage: OnStage, *, quiet: bool = False) -> None:
        """Begin. `quiet`: nobody waits for the first, so that stages are told to nobody, and a failure is news."""
        assert count > 0
        self._recruit = recruit
        self._clock = clock
        self._on_stage = on_stage
        self._count = count
        self._stop = threading.Event()
        #: Around all below; notified when one of them changes.
        self._change = threading.Condition()
        #: How many were begun.
        self._begun = 0
        self._ready: list[str] = []
        self._errors: list[VmrunError] = []
        self._crash: BaseException | None = None
        self._news: list[str] = []
        self._quiet = quiet
        #: Threads that have not come to their end.
        self._working = min(count, AT_ONCE)
        for number in range(self._working):
            threading.Thread(target=self._work, name=f"vmrun-muster-{number}", daemon=True).start()

    # --- what is seen from outside ---

    def first(self) -> str:
        """The id of the first machine that is ready, as soon as it is. Raises why there is none.

        That is Stopped if nobody wants one any more. After it, stages are told to nobody: whoever watches the job is
        shown the machines themselves.
        """
        with self._change:
            while not self._ready and self._crash is None and self.running:
                self._change.wait(TICK)
            self._quiet = True
            if self._ready:
                return self._ready[0]
            if self._crash is not None:
                raise self._crash
            raise self._errors[0] if self._errors else Stopped

    def join(self, seconds: float) -> bool:
        """Wait until all are ready or given up, at most so long; whether they are. In doubt it is called again."""
        deadline = self._clock.monotonic() + seconds
        with self._change:
            while self.running and self._clock.monotonic() < deadline:
                self._change.wait(TICK)
            return not self.running

    def stop(self, patience: float = STOP_PATIENCE) -> None:
        """Get no more, and give back those that are not ready; returns when that is done, or after `patience`."""
        with self._change:
            self._quiet = True
        self._stop.set()
        self.join(patience)

    @property
    def running(self) -> bool:
        """Whether any is still on its way."""
        return self._working > 0

    @property
    def ready(self) -> list[str]:
        """The machines that are there, in the order in which they came."""
        with self._change:
            return list(self._ready)

    @property
    def short(self) -> int:
        """With all threads at their end: how many machines did not come because none was to be had."""
        with self._change:
            searched = any(isinstance(error, CapacityError) for error in self._errors)
            return self._count - len(self._ready) if searched and not self.running and not self._stop.is_set() else 0

    def news(self) -> list[str]:
        """What a person should know of it and was not told yet."""
        with self._change:
            news, self._news = self._news, []
        return news

    # --- the threads ---

    def _work(self) -> None:
        try:
            while (number := self._next()) is not None:
                self._one(number)
        except Stopped:
            log.info("event=muster-stopped")
        except BaseException as error:  # noqa: BLE001 - a thread's boundary: whoever waits is told
            log.error("event=muster-crashed error=%r", error)
            with self._change:
                self._crash = self._crash or error
        finally:
            with self._change:
                self._working -= 1
                if not self._working:
                    self._sum_up()
                self._change.notify_all()

    def _next(self) -> int | None:
        """The number of the next machine to get; None when there is none to get, or none to be had."""
        with self._change:
            exhausted = any(isinstance(error, CapacityError) for error in self._errors)
            if self._begun >= self._count or exhausted or self._stop.is_set():
                return None
            self._begun += 1
            return self._begun

    def _one(self, number: int) -> None:
        def stage(text: str) -> None:
            with self._change:
                if not self._quiet:
                    self._on_stage(f"machine {number} of {self._count}: {text}" if self._count > 1 else text)

        try:
            vm = self._recruit(stage, StoppableClock(self._clock, self._stop))
        except VmrunError as error:
            log.info("event=muster-failed number=%d code=%s error=%s", number, error.code, error.message)
            with self._change:
                self._errors.append(error)
                self._change.notify_all()
            return
        with self._change:
            self._ready.append(vm)
            self._change.notify_all()

    def _sum_up(self) -> None:
        """With all threads at their end, say so if fewer came than were wanted."""
        ready, told = len(self._ready), self._ready or self._quiet
        if told and not self._stop.is_set():
            whys = [error.message for error in self._errors] + ([repr(self._crash)] if self._crash else [])
            self._news += [f"only {ready} of {self._count} machines were to be had: {why}" for why in whys[:1]]
