"""How much memory follows from what tasks took."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.core.world import job_spec
from vmrun.core.clouds import Offer
from vmrun.core.crew import Asked, usable_memory
from vmrun.core.model import FunctionSpec, JobSpec, Payload
from vmrun.submit.sizing import LEAST, MARGIN, OOM_MARGIN, Usage, akin, choose, identity, memory_for, with_reserve

GIB = 2**30
ASKED = Asked()
ONE = Usage("job x", tasks=100, peak=GIB, cpu=0.9)


def offer(vcpus: int, gib: float, price: float = 1.0) -> Offer:
    return Offer("ec2", f"t{vcpus}-{gib:g}", "east", "east-1", "x86_64", vcpus, vcpus // 2, int(gib * GIB), price)


@given(st.integers(1, 2**44))
def test_the_systems_share_comes_on_top(tasks: int) -> None:
    memory = with_reserve(tasks)
    assert usable_memory(memory) >= tasks
    assert memory >= LEAST
    # And no more than that, to a megabyte.
    assert memory == LEAST or usable_memory(memory - 2**20) < tasks


def test_each_of_the_workers_has_its_peak_and_a_margin() -> None:
    assert usable_memory(memory_for(ONE, 4, 0)) == pytest.approx(MARGIN * 4 * GIB, rel=0.001)
    assert memory_for(ONE, 8, 0) > memory_for(ONE, 4, 0)


def test_what_is_shared_counts_once() -> None:
    large = dataclasses.replace(ONE, peak=11 * GIB)
    assert usable_memory(memory_for(large, 8, 10 * GIB)) == pytest.approx(MARGIN * (8 + 10) * GIB, rel=0.001)
    # It may be larger than what a task ever had of it.
    assert usable_memory(memory_for(ONE, 8, 10 * GIB)) == pytest.approx(MARGIN * GIB, rel=0.001)


def test_a_peak_that_ended_a_task_is_no_more_than_a_beginning() -> None:
    short = dataclasses.replace(ONE, oom=2)
    assert usable_memory(memory_for(short, 1, 0)) == pytest.approx(OOM_MARGIN * GIB, rel=0.001)
    sized = choose(short, [offer(2, 64)], ASKED)
    assert sized is not None
    assert sized.uncertain
    assert "2 of them ran out of memory" in sized.why


def test_the_first_offer_on_which_all_its_workers_fit() -> None:
    # Two cores with 2 GiB, sixteen with 16 GiB: each too little for a gigabyte per core and the margin.
    tries = [offer(2, 2, 0.5), offer(16, 16, 1.0), offer(4, 8, 1.5), offer(2, 64, 2.0)]
    sized = choose(ONE, tries, ASKED)
    assert sized is not None
    assert (sized.workers, sized.uncertain) == (4, False)
    assert 5 * GIB < sized.memory < 6 * GIB
    assert sized.why == (
        "5.54 GB: 1.25 x 1.07 GB x 4 at once and the system's share; "
        "the peak is that of 100 tasks of job x, with 0.90 cores each"
    )
    # One worker needs no more than its own, and the cheapest will do.
    alone = choose(ONE, tries, Asked(workers=1))
    assert alone is not None
    assert alone.memory < 2 * GIB
    assert alone.why.startswith("1.48 GB: 1.25 x 1.07 GB and the system's share; ")
    assert choose(ONE, tries[:2], ASKED) is None
    assert choose(ONE, [], ASKED) is None


@given(
    st.integers(1, 2**36),
    st.lists(st.tuples(st.integers(1, 256), st.floats(0.5, 4096)), max_size=6),
    st.integers(0, 64),
)
def test_what_is_chosen_fits(peak: int, machines: list[tuple[int, float]], workers: int) -> None:
    tries = [offer(cores, gib) for cores, gib in machines]
    sized = choose(dataclasses.replace(ONE, peak=peak), tries, Asked(workers=workers))
    if sized is None:
        return
    taken = next(each for each in tries if each.memory >= sized.memory)
    assert usable_memory(taken.memory) >= sized.workers * peak
    assert sized.workers == (workers or sized.workers)


def spec(**changes: Any) -> JobSpec:
    return dataclasses.replace(job_spec(tasks=100), **{"code": Payload("c" * 64, 10), **changes})


def test_a_function_is_known_by_its_content_and_not_by_what_is_done_with_it() -> None:
    known = identity(spec())
    assert identity(spec(tasks=5, shard_size=2, name="another", on="ec2", retries=3, reduce=True)) == known
    others = [
        spec(code=Payload("d" * 64, 10)),
        spec(code=None),
        spec(function=FunctionSpec("source", path="job.py", name="other")),
        spec(function=FunctionSpec("pickle", payload=Payload("e" * 64, 9))),
        spec(kind="script"),
        spec(python="3.12"),
    ]
    assert len({known, *map(identity, others)}) == 1 + len(others)
    # Another version of it goes by the same name.
    assert [akin(each, spec()) for each in others] == [True, True, False, False, False, True]
    assert not akin(spec(name="another"), spec())
