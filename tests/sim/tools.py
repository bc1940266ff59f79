"""What every actor works with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from unittest.mock import patch

from tests.sim.cloud import Cloud
from tests.sim.keys import FakeSigner, fake_keyring
from tests.sim.knobs import JobPlan, Knobs
from tests.sim.oracle import Oracle
from tests.sim.store import SimStore
from tests.sim.world import Process, World
from vmrun.core import desk as desks
from vmrun.core import outcomes
from vmrun.core.desk import Desk
from vmrun.core.errors import StoreUnavailable
from vmrun.core.journal import Journal
from vmrun.core.records import Assign, Claim, Delete, Drain, Entry, Record, Release, Results

T = TypeVar("T")
DEPLOYMENT = "0" * 25 + "d"


@dataclass
class Scene:
    """One seed's world, furnished."""

    world: World
    knobs: Knobs
    oracle: Oracle
    store: SimStore
    cloud: Cloud
    #: Job ids, in the order of the plans.
    jobs: list[str]
    #: How many clients have not seen the end of their job.
    waiting: int = 0
    #: Open jobs to which somebody still adds tasks.
    feeding: set[str] = field(default_factory=set)
    #: Tasks that clients were told to have added to an open job, and adds that may have been made besides.
    added: dict[str, int] = field(default_factory=dict)
    perhaps_added: dict[str, int] = field(default_factory=dict)

    #: Who is about to append to which VM's journal.
    meetings: dict[str, int] = field(default_factory=dict)

    def meet(self, process: Process, prefix: str) -> None:
        """Wait, for a while, until somebody else is about to append to the same journal."""
        self.meetings[prefix] = self.meetings.get(prefix, 0) + 1
        for _ in range(30):
            if self.meetings[prefix] > 1 or not self.world.faulty:
                break
            process.sleep(1.0)
        process.sleep(process.rng.uniform(0.0, 1.5))
        self.meetings[prefix] -= 1

    def nap(self, process: Process) -> None:
        """Now and then the machine sleeps at the worst of times: with work in hand, or between look and act."""
        if self.world.faulty and process.rng.random() < self.knobs.nap:
            process.machine.pause(process.rng.choice(self.knobs.pauses))
            process.sleep(0.0)

    def desk(self, process: Process, writer: str = "client") -> Desk:
        """A process's own desk, as it is right after its start."""
        return Desk(self.store, process, process.rng, fake_keyring(), FakeSigner(writer), DEPLOYMENT)

    def plan(self, job: str) -> JobPlan:
        return self.knobs.jobs[self.jobs.index(job)]


def insist(process: Process, call: Callable[[], T], pause: float = 3.0) -> T:
    """The answer to `call`, asked until there is one."""
    while True:
        try:
            return call()
        except StoreUnavailable:
            process.sleep(process.rng.uniform(0.0, pause))


@contextmanager
def watched(scene: Scene) -> Iterator[None]:
    """Production code as it is, except that the oracle hears what `append` told, and that appends give up sooner."""

    class WatchedJournal(Journal):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "budget": scene.knobs.budget})

        def append(self, body: Record, attachment: bytes = b"") -> Entry | None:
            assert isinstance(self._clock, Process)
            self._clock.stall()
            if isinstance(body, Claim | Results | Release):
                scene.nap(self._clock)
            if scene.knobs.meet and isinstance(body, Assign | Delete | Drain):
                scene.meet(self._clock, self.prefix)
            resent, n = self._doubtful, self.next
            entry = super().append(body, attachment)
            scene.oracle.appended(self.prefix, n, body, entry, resent=bool(resent))
            return entry

    with patch.object(desks, "Journal", WatchedJournal), patch.object(outcomes, "INLINE_MAX", scene.knobs.inline):
        yield
