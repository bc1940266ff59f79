"""Systems against each other over the same workload: started, each its best chunk found, run in turn, compared.

A session has the systems that may stand side by side: those without daemons of their own together, Ray, Dask and
Lithops each with vmrun alone, so that nobody's idle daemons take part of a core from the others.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import figures
import harness
from environments import NotInstalled, python_of
from process import Driver, DriverFailed, Unsupported

#: Seconds that one run may take before it counts as hung.
RUN_LIMIT = 180.0
#: Runs that do not count, of a workload that takes less than so many seconds.
WARM_UPS, WARM_UP_SECONDS = 3, 1.0
#: If a round takes less than so many seconds there are so many times as many: a few milliseconds say little.
SHORT_SECONDS, SHORT_TIMES = 0.5, 5
#: Processes that do the work, in every system.
WORKERS = 2
#: Characters of a problem that a table has room for.
_PROBLEM = 60
_WHAT = {NotInstalled: "not installed"}


@dataclass(frozen=True)
class Contestant:
    """One system in one way of using it."""

    label: str
    system: str
    environment: str
    options: Mapping[str, Any] = field(default_factory=dict)
    #: Chunk sizes to choose from by hand, by workload; 0 leaves it to the system.
    chunks: Mapping[str, Sequence[int]] = field(default_factory=dict)
    #: What this one costs most is a start: fewer tasks of each workload, and the rates are compared.
    reduced: Mapping[str, int] = field(default_factory=dict)
    #: The workloads that it takes part in; all of them if there are none.
    only: frozenset[str] = frozenset()

    def same_instance(self, other: Contestant) -> bool:
        """Whether both may use one instance of their system."""
        return (self.system, self.environment, self.options) == (other.system, other.environment, other.options)


@dataclass(frozen=True)
class Session:
    """Contestants that run in turn, and which of them the others are compared with."""

    name: str
    ours: str
    contestants: Sequence[Contestant]


@dataclass(frozen=True)
class Workload:
    """A workload at one size."""

    name: str
    #: Name in `workloads`.
    load: str
    count: int
    size: int = 0


@dataclass
class Standing:
    """What one contestant did in one workload."""

    session: str
    workload: str
    label: str
    tasks: int = 0
    chunk: int = 0
    runs: list[dict[str, Any]] = field(default_factory=list)
    #: Why there are no runs.
    problem: str = ""

    @property
    def per_task(self) -> list[float]:
        """Seconds per task of each round."""
        return [run["seconds"] / run["tasks"] for run in self.runs]

    @property
    def seconds(self) -> float:
        """Median seconds of a run."""
        return statistics.median(run["seconds"] for run in self.runs)

    @property
    def rate(self) -> float:
        """Median tasks per second."""
        return 1 / statistics.median(self.per_task)

    def shares(self, of: str = "seconds", *, stolen: bool = False) -> list[float]:
        """Of each run, how much of all cores' time went into the tasks themselves; none for untimed workloads.

        Time that the host gave to other machines is not counted, unless `stolen` asks for it.
        """
        return [
            figures.share_of_ideal(
                run["cpu_seconds"], WORKERS, run[of], 0.0 if stolen else run.get("stolen_seconds", 0.0)
            )
            for run in self.runs
            if "cpu_seconds" in run
        ]

    def stretches(self) -> list[float]:
        """Of each run, its time over the best that its task times allow."""
        return [
            run["seconds"] / max(run["busy_seconds"] / WORKERS, run["longest"]) for run in self.runs if "longest" in run
        ]


class Stage:
    """The drivers of one session. Use it as a context."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.drivers: dict[str, Driver] = {}
        self.problems: dict[str, str] = {}
        self.versions: dict[str, str] = {}
        self.starts: dict[str, float] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for one in self.session.contestants:
                self._start(stack, one)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self, stack: contextlib.ExitStack, one: Contestant) -> None:
        """Start a system, or share the instance of one that uses the same system in another way."""
        twin = next((other for other in self.session.contestants if other.same_instance(one)), one)
        if twin.label in self.problems:
            self.problems[one.label] = self.problems[twin.label]
            return
        if twin.label not in self.drivers:
            try:
                driver = stack.enter_context(Driver(one.system, python_of(one.environment)))
                self.drivers[one.label] = driver
                driver.start(WORKERS, **one.options)
            except (NotInstalled, DriverFailed) as reason:
                self._out(one.label, f"{_WHAT.get(type(reason), 'did not start')}: {reason}")
                return
        driver = self.drivers[one.label] = self.drivers[twin.label]
        self.versions[one.label] = driver.version
        self.starts[one.label] = driver.start_seconds

    def _out(self, label: str, problem: str) -> None:
        """Whoever shares the instance of this one is out of the session from now on."""
        driver = self.drivers.get(label)
        for other in [name for name, theirs in self.drivers.items() if theirs is driver] or [label]:
            self.problems[other] = problem.splitlines()[0]
        if driver is not None:
            driver.close(ask=False)

    def compete(self, workload: Workload, pairs: int) -> list[Standing]:
        """Everybody's standing after `pairs` rounds, or more short ones; their order changes from one to the next."""
        standings = {}
        for one in self.session.contestants:
            if not one.only or workload.name in one.only:
                standings[one.label] = self._warm_up(one, workload)
        for standing in standings.values():
            standing.problem = standing.problem or self.problems.get(standing.label, "")
        for number in range(pairs * SHORT_TIMES):
            if number == pairs and sum(one.seconds for one in standings.values() if one.runs) > SHORT_SECONDS:
                break
            for label in figures.rotated(list(standings), number):
                standing = standings[label]
                if not standing.problem and label not in self.problems:
                    self._try(standing, workload)
        return list(standings.values())

    def _warm_up(self, one: Contestant, workload: Workload) -> Standing:
        """Runs that do not count, one with each chunk size and of short ones some more; the best size is kept."""
        count = min(workload.count, one.reduced.get(workload.name, workload.count))
        standing = Standing(self.session.name, workload.name, one.label, count)
        if one.label in self.problems:
            standing.problem = self.problems[one.label]
            return standing
        times: dict[int, float] = {}
        chunks = one.chunks.get(workload.name, (0,))
        # Whoever has nothing to choose from is not to have run less before it counts.
        for chunk in (*chunks, *itertools.repeat(chunks[-1], WARM_UPS - len(chunks))):
            if chunk in times and sum(times.values()) > WARM_UP_SECONDS:
                break
            standing.chunk = chunk
            self._try(standing, workload)
            if standing.problem:
                return standing
            times[chunk] = min(times.get(chunk, math.inf), standing.runs.pop()["seconds"])
        standing.chunk = min(times, key=lambda chunk: times[chunk])
        return standing

    def _try(self, standing: Standing, workload: Workload) -> None:
        driver = self.drivers[standing.label]
        request = {
            "workload": workload.load,
            "count": standing.tasks,
            "size": workload.size,
            "chunk": standing.chunk,
        }
        try:
            standing.runs.append(driver.ask("run", RUN_LIMIT, **request))
        except Unsupported as reason:
            standing.problem = f"cannot: {reason}"
        except DriverFailed as reason:
            standing.problem = str(reason).splitlines()[0]
            standing.runs.clear()
            # It may be in any state; what comes after this is not measured with it.
            self._out(standing.label, f"failed in {workload.name}: {standing.problem}")


def run(session: Session, workloads: Sequence[Workload], pairs: int) -> Iterator[tuple[Workload, list[Standing]]]:
    """All workloads of a session, one after the other."""
    print(f"\n== {session.name}: {', '.join(one.label for one in session.contestants)}", flush=True)
    with Stage(session) as stage:
        for label, version in stage.versions.items():
            print(f"   {label}: {version}, started in {stage.starts[label]:.2f} s")
        for workload in workloads:
            print(f"-- {session.name}, {workload.name}", file=sys.stderr, flush=True)
            standings = stage.compete(workload, pairs)
            print(f"\n{workload.name} ({session.name})\n{table(standings, session.ours)}", flush=True)
            harness.write(
                f"{session.name}-{workload.name}".replace(" ", "-"),
                {"standings": [asdict(one) for one in standings], "versions": stage.versions, "starts": stage.starts},
            )
            yield workload, standings


def table(standings: Sequence[Standing], ours: str) -> str:
    """Standings as text; the ratio is of rates, vmrun's over the other's, paired by round."""
    mine = next((one for one in standings if one.label == ours and one.runs), None)
    rows: list[tuple[object, ...]] = []
    for one in standings:
        if not one.runs:
            rows.append((one.label, f"{one.tasks:,}", "", (one.problem or "no runs")[:_PROBLEM], "", "", "", "", ""))
            continue
        found = figures.ratios(one.per_task, mine.per_task) if mine and len(mine.runs) == len(one.runs) else []
        shares, stretches = one.shares(), one.stretches()
        rows.append(
            (
                one.label,
                f"{one.tasks:,}",
                one.chunk or "auto",
                f"{one.seconds:.3f} s",
                f"{one.rate:,.0f}/s" if one.rate >= 100 else f"{one.rate:.2f}/s",
                f"{statistics.median(found):.2f}" if found else "",
                f"{min(found):.2f}..{max(found):.2f}" if found else "",
                f"{statistics.median(shares):.1%}" if shares else "",
                f"{statistics.median(stretches):.3f}" if stretches else "",
            )
        )
    header = ("", "tasks", "chunk", "run", "rate", f"{ours} is faster by", "range", "of ideal", "x optimum")
    return harness.table(header, rows)
