"""The sessions and workloads of the benchmark, and the figures that come of them."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterator, Sequence

import contest
import figures
from contest import Contestant, Session, Standing, Workload
from figures import Figure

#: Workloads at full size, and for trying out.
FULL = (
    Workload("noops-10k", "noops", 10_000),
    Workload("noops-100k", "noops", 100_000),
    Workload("1ms", "1ms", 2_000),
    Workload("50ms", "50ms", 200),
    Workload("1s", "1s", 16),
    Workload("skewed", "skewed", 3_000),
    Workload("arguments", "arguments", 32),
    Workload("results", "results", 32),
)
QUICK = (
    Workload("noops-10k", "noops", 2_000),
    Workload("noops-100k", "noops", 10_000),
    Workload("1ms", "1ms", 200),
    Workload("50ms", "50ms", 20),
    Workload("1s", "1s", 2),
    Workload("skewed", "skewed", 300),
    Workload("arguments", "arguments", 4),
    Workload("results", "results", 4),
)
#: Chunk sizes that someone with experience would try.
HAND_PICKED = {
    "noops-10k": (10, 100, 1_000),
    "noops-100k": (100, 1_000, 5_000),
    "1ms": (1, 10, 50),
    "50ms": (1, 5),
    "1s": (1,),
    "skewed": (1, 5, 20),
    "arguments": (1, 4),
    "results": (1, 4),
}
#: For those whose calls cost a millisecond, and for Lithops, whose tasks cost an interpreter.
PER_CALL = {"noops-10k": 2_000, "noops-100k": 2_000}
SHORTER = {"1ms": 1_000, "50ms": 60, "1s": 6, "skewed": 1_000}
LITHOPS = {
    "noops-10k": 20,
    "noops-100k": 20,
    "1ms": 20,
    "50ms": 20,
    "1s": 6,
    "skewed": 20,
    "arguments": 8,
    "results": 8,
}
NOOPS = frozenset({"noops-10k", "noops-100k"})
#: Workloads that are held against the ideal, which only a quiet machine lets anybody come near.
TIMED = frozenset({"50ms", "1s"})
ENGINE, WARM, COLD = "vmrun engine", "vmrun", "vmrun, new machine"
BARE = "bare processes"
_KEEP = {"keep_warm": "10m"}


def _engine(**reduced: int) -> Contestant:
    return Contestant(ENGINE, "vmrun-engine", "vmrun", reduced=reduced)


def _warm(only: frozenset[str] = frozenset()) -> Contestant:
    return Contestant(WARM, "vmrun-job", "vmrun", options=_KEEP, only=only)


_EXECUTOR = Contestant("ProcessPoolExecutor", "executor", "stdlib", chunks=HAND_PICKED)
_CHUNKED = NOOPS | {"1ms"}
SESSIONS = (
    Session(
        "engine",
        ENGINE,
        (
            _engine(),
            _EXECUTOR,
            Contestant("multiprocessing.Pool", "pool", "stdlib", chunks=HAND_PICKED),
            Contestant("joblib", "joblib", "joblib"),
            Contestant(BARE, "bare", "stdlib", only=TIMED),
        ),
    ),
    Session("end-to-end", WARM, (_warm(), Contestant(COLD, "vmrun-job", "vmrun"), _EXECUTOR)),
    Session(
        "ray",
        ENGINE,
        (
            _engine(**SHORTER),
            _warm(NOOPS),
            Contestant("Ray", "ray", "ray", chunks=dict.fromkeys(HAND_PICKED, (1,)), reduced={**PER_CALL, **SHORTER}),
            Contestant("Ray, chunked by hand", "ray", "ray", chunks=HAND_PICKED, reduced=SHORTER, only=_CHUNKED),
        ),
    ),
    Session(
        "dask",
        ENGINE,
        (
            _engine(**SHORTER),
            Contestant(
                "Dask", "dask", "dask", chunks=dict.fromkeys(HAND_PICKED, (1,)), reduced={**PER_CALL, **SHORTER}
            ),
            Contestant("Dask, chunked by hand", "dask", "dask", chunks=HAND_PICKED, reduced=SHORTER, only=_CHUNKED),
        ),
    ),
    Session(
        "lithops",
        ENGINE,
        (_engine(**SHORTER), _warm(NOOPS), Contestant("Lithops", "lithops", "lithops", reduced=LITHOPS)),
    ),
)


def measure(sessions: Collection[str], names: Collection[str], pairs: int, *, quick: bool) -> Iterator[Figure]:
    """Run the sessions over the workloads of these names; the figures that targets ask for."""
    workloads = [one for one in (QUICK if quick else FULL) if one.name in names]
    for session in SESSIONS:
        if session.name not in sessions:
            continue
        for workload, standings in contest.run(session, workloads, pairs):
            yield from compared(session, workload, standings)


def compared(session: Session, workload: Workload, standings: Sequence[Standing]) -> Iterator[Figure]:
    """Figures of one workload in one session: rates against each peer, shares of the ideal, stretches."""
    ran = {one.label: one for one in standings if one.runs}
    for label in (ENGINE, WARM, COLD, BARE):
        if label in ran and session.name in ("engine", "end-to-end"):
            yield from _own(workload, ran[label], ran.get(BARE))
    for label in (ENGINE, WARM):
        if label not in ran:
            continue
        mine = ran[label]
        for other in ran.values():
            if not other.label.startswith("vmrun") and len(mine.runs) == len(other.runs):
                name = f"{workload.name}: {label} against {other.label}"
                note = f"{mine.rate:,.1f}/s against {other.rate:,.1f}/s"
                if mine.tasks != other.tasks:
                    note += f" over {other.tasks:,} tasks"
                if other.chunk > 1:
                    note += f", chunks of {other.chunk}"
                yield Figure(name, figures.ratio(other.per_task, mine.per_task), note)


def _own(workload: Workload, one: Standing, bare: Standing | None) -> Iterator[Figure]:
    if workload.name in TIMED:
        share = statistics.median(one.shares())
        note = f"{one.tasks} tasks, start included; {statistics.median(one.shares(stolen=True)):.1%} with stolen time"
        if bare is not None:
            note += f"; {bare.label} {statistics.median(bare.shares()):.1%}"
        yield Figure(f"{workload.name}: {one.label}, share of ideal", share, note)
        if one.label in (WARM, COLD):
            apart = statistics.median(one.shares("from_first_start"))
            start = statistics.median(run["seconds"] - run["from_first_start"] for run in one.runs)
            whole = statistics.median(one.shares("from_first_start", stolen=True))
            note = f"{one.tasks} tasks; {start:.2f} s from submit to the first start; {whole:.1%} with stolen time"
            yield Figure(f"{workload.name}: {one.label}, share of ideal from first start", apart, note)
    if workload.load == "skewed":
        yield Figure(f"skewed: {one.label}, times optimum", statistics.median(one.stretches()), f"{one.tasks:,} tasks")
