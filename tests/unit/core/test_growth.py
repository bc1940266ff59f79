"""The next machine of a job that outgrew one: larger, by one size, for a bounded number of times."""

from __future__ import annotations

import dataclasses

import pytest

from tests.unit.core.world import OTHER_VM, THIRD_VM, VM, job_spec
from vmrun.catalog.choosing import offers
from vmrun.catalog.machines import usable
from vmrun.catalog.table import GIB
from vmrun.core.clouds import Need
from vmrun.core.crew import Asked, crew_of, usable_memory
from vmrun.core.growth import (
    FACTOR,
    LEAST,
    MOVES_MAX,
    grown_limit,
    grown_need,
    grown_spec,
    grown_workers,
    may_grow,
    too_small,
    verdict,
)
from vmrun.core.model import JobSpec
from vmrun.core.outgrown import Outgrown

SPEC: JobSpec = dataclasses.replace(job_spec(), on_oom="grow", max_lifetime=3600.0)


def outgrown(gib: float, vm: str = VM, workers: int = 4, since: float = 1000.0) -> Outgrown:
    return Outgrown(vm, int(gib * GIB), workers, 7, int(0.9 * gib * GIB), int(0.95 * gib * GIB), "short", since)


def test_a_job_that_outgrew_nothing_is_asked_for_as_it_is() -> None:
    assert grown_spec(SPEC, (), 9999.0) is SPEC
    assert grown_need(Need(memory=5), ()) == Need(memory=5)
    assert grown_workers((), 8) == 8


@pytest.mark.parametrize(("on", "region"), [("ec2", "us-east-1"), ("gce", "us-central1"), ("ibm", "us-south")])
@pytest.mark.parametrize("gib", [2, 4, 8, 16, 32, 64, 128, 256])
def test_the_next_size_of_each_cloud_is_twice_as_large_at_most(on: str, region: str, gib: int) -> None:
    need = grown_need(Need(memory=usable(on, gib * GIB)), [outgrown(gib)])
    found = offers(on, need, [region])
    assert found
    least = min(offer.memory for offer in found)
    assert gib * GIB < least <= max(2 * gib, LEAST * 2 // GIB) * GIB


def test_a_tiny_machine_is_followed_by_one_that_is_worth_its_boot() -> None:
    assert grown_need(Need(memory=512 * 10**6), [outgrown(0.5)]).memory == LEAST
    assert grown_need(Need(cpus=4), [outgrown(8)]) == Need(cpus=4, memory=int(8 * FACTOR * GIB))
    # What was asked for anyway stays asked for.
    assert grown_need(Need(memory=64 * GIB), [outgrown(8)]).memory == 64 * GIB
    # The largest that was too small counts, whichever said so last.
    assert grown_need(Need(), [outgrown(16), outgrown(8, OTHER_VM)]).memory == int(16 * FACTOR * GIB)


def test_each_worker_has_more_although_the_machine_has_more_cores() -> None:
    before = crew_of(4, 8 * GIB, Asked()).workers
    many = crew_of(16, 16 * GIB, Asked()).workers
    after = grown_workers([outgrown(8, workers=before)], many)
    assert (before, many, after) == (4, 16, 4)
    assert usable_memory(16 * GIB) / after > 1.9 * usable_memory(8 * GIB) / before
    assert grown_workers([outgrown(8, workers=0)], 16) == 16


def test_a_limit_for_each_task_doubles_with_each_size() -> None:
    need = Need(task_memory=GIB)
    assert grown_limit(Need(), [outgrown(8)]) == 0
    assert grown_limit(need, [outgrown(8)]) == 2 * GIB
    # Two VMs of one size are one move.
    assert grown_limit(need, [outgrown(8), outgrown(8, OTHER_VM), outgrown(16, THIRD_VM)]) == 4 * GIB
    assert grown_need(need, [outgrown(8)]).task_memory == 2 * GIB


def test_who_may_grow_and_how_often() -> None:
    sizes = [outgrown(2.0**at, VM) for at in range(MOVES_MAX)]
    assert may_grow(SPEC, sizes[:-1])
    assert not may_grow(SPEC, sizes)
    assert may_grow(SPEC, [sizes[0]] * MOVES_MAX)
    assert not may_grow(dataclasses.replace(SPEC, on_oom="fail"), ())


def test_only_a_larger_machine_is_not_too_small() -> None:
    assert [too_small(gib * GIB, [outgrown(8)]) for gib in (4, 8, 9)] == [True, True, False]
    assert not too_small(GIB, ())


def test_the_lifetime_is_that_of_all_machines_together() -> None:
    spec = grown_spec(SPEC, [outgrown(8, since=1000.0), outgrown(16, OTHER_VM, since=2500.0)], 3000.0)
    assert spec.max_lifetime == 1600.0
    # A clock that went back makes it no longer.
    assert grown_spec(SPEC, [outgrown(8, since=5000.0)], 3000.0).max_lifetime == 3600.0


def test_the_verdict_names_peak_and_limit() -> None:
    assert verdict(outgrown(8)) == (
        "task 7 peaked at 7.73 GB, where 8.16 GB was the limit on a machine of 8.59 GB (short)"
    )
    unknown = dataclasses.replace(outgrown(8), peak=0)
    assert verdict(unknown).startswith("task 7 needs more memory, where 8.16 GB was the limit")
