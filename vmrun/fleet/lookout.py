"""When whoever looks after a job asks whether its machines are still there, and when it searches again: decisions only.

A machine on demand ends when its agent says so, or because something is broken; a spot machine may end at any time
without a word. So the cloud of a spot machine is asked more often: every question is one request for each machine, and
their number is bounded by the pauses here.
"""

from __future__ import annotations

from vmrun.core.clock import Clock
from vmrun.core.clouds import Market
from vmrun.core.errors import CapacityError
from vmrun.core.model import JobSpec

#: Seconds between questions to the cloud about machines on demand, and about spot machines.
ORDINARY, SPOT = 15.0, 3.0
#: Seconds between looks at a job whose machines have left it, by their own journals, while another client sees to it.
LEFT = 1.0
#: Seconds after a search for another machine that found none: until the next one, doubled each time, and at most.
AGAIN_FIRST, AGAIN_LONGEST = 15.0, 300.0
#: Seconds from the first such search until no further one is begun.
AGAIN_FOR = 3600.0


def pause_of(spec: JobSpec) -> float:
    """Seconds between questions about machines of this job."""
    return ORDINARY if spec.need.market is Market.on_demand else SPOT


def may_pass(error: CapacityError) -> bool:
    """Whether the same search may find a machine later: it knew offers, and none of them was to be had."""
    return "tried" in error.data


class Again:
    """Searches for another machine that found none: when the next one is due, and whether there is one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = self._next = 0.0
        self._pause = 0.0

    @property
    def due(self) -> bool:
        """Whether a search may begin now."""
        return not self._pause or self._clock.monotonic() >= self._next

    @property
    def seconds(self) -> float:
        """Until the next search."""
        return max(0.0, self._next - self._clock.monotonic()) if self._pause else 0.0

    def missed(self) -> bool:
        """Note that a search found nothing; whether there is to be another one."""
        now = self._clock.monotonic()
        if not self._pause:
            self._began = now
        self._pause = min(AGAIN_LONGEST, self._pause * 2) if self._pause else AGAIN_FIRST
        self._next = now + self._pause
        return self._next <= self._began + AGAIN_FOR

    def found(self) -> None:
        """There is no need to search."""
        self._pause = 0.0


class Lookout:
    """Of one watcher of one job; begins as if it had just looked."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._looked = clock.monotonic()
        self._lost = False
        self.again = Again(clock)

    def due(self, spec: JobSpec, *, lost: bool, served: bool = True) -> bool:
        """Whether to look now, by what the journals say.

        `lost`: the job has no machine any more that can do its work; `served`: it has one, or one is on its way.
        """
        news, self._lost = lost and not self._lost, lost
        if served and not lost:
            self.again.found()
        if not self.again.due:
            return False
        every = LEFT if lost else pause_of(spec) if served else ORDINARY
        # What has just left its job is replaced at once.
        return news or self._clock.monotonic() - self._looked >= every

    def looked(self) -> None:
        """A look has ended."""
        self._looked = self._clock.monotonic()
