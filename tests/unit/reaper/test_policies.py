"""The reaper's judges, one table of facts each."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.unit.core.world import DEPLOYMENT, JOB, VM, intent
from tests.unit.core.world import ready as ready_of
from vmrun.core.clouds import TAG_DEADLINE, TAG_OWNER, TAG_VM, Instance, InstanceState, instance_name
from vmrun.core.folds import VmFold
from vmrun.core.records import Delete, Drain, Failed, Gone, Hold
from vmrun.reaper.policies import (
    BOOT_MARGIN,
    DEADLINE_MARGIN,
    HOLD_MARGIN,
    IDLE_MARGIN,
    ORPHAN_GRACE,
    Observed,
    doubtful,
    judge,
    ours,
    vanished,
)

NOW = 1_700_000_000.0
TAGS = {TAG_OWNER: DEPLOYMENT, TAG_VM: VM}


def instance(**changes: Any) -> Instance:
    known = Instance("i-1", instance_name(DEPLOYMENT, VM), "fake", InstanceState.running, tags=TAGS, created_at=NOW)
    return dataclasses.replace(known, **changes)


def fold(*, ready: bool = True, age: float = 0.0, deadline: float = NOW + 3600, **changes: Any) -> VmFold:
    wanted = dataclasses.replace(intent(VM), hard_deadline=deadline)
    found = VmFold(
        intent=wanted, intended_at=NOW - age, cloud_id="i-1", jobs=[JOB], ready=ready_of(VM) if ready else None
    )
    return dataclasses.replace(found, **changes)


def paid(*given_at: float, max_cost: float = 2.0, usd_per_hour: float | None = 2.0) -> VmFold:
    """A VM at 2 dollars an hour, with jobs that may cost as much."""
    found = fold()
    assert found.intent is not None
    wanted = dataclasses.replace(found.intent, usd_per_hour=usd_per_hour)
    return dataclasses.replace(found, intent=wanted, given_at=list(given_at), max_cost=max_cost)


def facts(**changes: Any) -> Observed:
    return dataclasses.replace(Observed(VM, "fake", instance(), fold(), NOW), **changes)


GRACE = intent(VM).boot_grace

CASES: list[tuple[str, Observed, str]] = [
    ("at work", facts(silent=10.0, busy="job"), ""),
    ("warm", facts(silent=10.0), ""),
    ("at its deadline", facts(fold=fold(deadline=NOW - DEADLINE_MARGIN)), ""),
    ("past its deadline", facts(fold=fold(deadline=NOW - DEADLINE_MARGIN - 1)), "expired"),
    (
        "past the deadline of its tag",
        facts(fold=None, instance=instance(tags=TAGS | {TAG_DEADLINE: "1699999000"})),
        "expired",
    ),
    ("a tag that is no number", facts(fold=None, instance=instance(tags=TAGS | {TAG_DEADLINE: "1e9"})), ""),
    ("held", facts(fold=fold(hold=Hold(JOB, NOW + 60, "why"))), ""),
    ("at the end of its hold", facts(fold=fold(hold=Hold(JOB, NOW - HOLD_MARGIN, "why"))), ""),
    ("held too long", facts(fold=fold(hold=Hold(JOB, NOW - HOLD_MARGIN - 1, "why"))), "hold_over"),
    ("condemned", facts(fold=fold(delete=Delete("why", "client"))), "condemned"),
    ("back from the dead", facts(fold=fold(gone=Gone("not found"))), "condemned"),
    ("drained", facts(fold=fold(drain=Drain("no work"))), "drained"),
    ("refused", facts(fold=fold(failed=Failed("quota", "no"))), "drained"),
    ("powered off", facts(instance=instance(state=InstanceState.stopped)), "drained"),
    ("its money lasts", facts(fold=paid(NOW - 3600 - DEADLINE_MARGIN)), ""),
    ("its money is spent", facts(fold=paid(NOW - 3600 - DEADLINE_MARGIN - 1), silent=10.0, busy="job"), "over_budget"),
    ("no limit", facts(fold=paid(NOW - 10 * 3600, max_cost=0.0)), ""),
    ("a limit without a price", facts(fold=paid(NOW - 10 * 3600, usd_per_hour=None)), ""),
    ("a fresh job with money of its own", facts(fold=paid(NOW - 10 * 3600, NOW - 60)), ""),
    ("its job may have it", facts(fold=fold(job_until=NOW - IDLE_MARGIN), busy="job"), ""),
    ("longer than its job may have it", facts(fold=fold(job_until=NOW - IDLE_MARGIN - 1), busy="job"), "overstayed"),
    ("its job has ended", facts(fold=fold(job_until=NOW - 9e3, stay_until=NOW + 60), idle=30.0), ""),
    (
        "held after such a job",
        facts(fold=fold(job_until=NOW - 9e3, hold=Hold(JOB, NOW + 60, "why")), busy="held for debugging"),
        "",
    ),
    ("booting", facts(fold=fold(ready=False, age=GRACE)), ""),
    ("never ready", facts(fold=fold(ready=False, age=GRACE + BOOT_MARGIN + 1)), "never_ready"),
    ("idle, and its agent has its time", facts(idle=IDLE_MARGIN), ""),
    ("idle", facts(idle=IDLE_MARGIN + 1), "idle"),
    ("in its warm window", facts(fold=fold(keep_warm=600.0), idle=600.0 + IDLE_MARGIN), ""),
    ("past its warm window", facts(fold=fold(keep_warm=600.0), idle=601.0 + IDLE_MARGIN), "idle"),
    ("to stay", facts(fold=fold(stay_until=NOW - IDLE_MARGIN), idle=9e6), ""),
    ("longer than it was to stay", facts(fold=fold(stay_until=NOW - IDLE_MARGIN - 1), idle=9e6), "idle"),
    ("past its stay, in its warm window", facts(fold=fold(stay_until=1.0, keep_warm=600.0), idle=599.0), ""),
    ("not let in yet", facts(fold=fold(ready=False), idle=9e6), ""),
    ("silent, not contested", facts(silent=500.0), ""),
    ("contested, and answered", facts(silent=5.0, contested=True), ""),
    ("contested and silent", facts(silent=500.0, contested=True), "dead"),
    ("not watched yet", facts(silent=None, contested=True), ""),
    ("unknown and young", facts(fold=None, instance=instance(created_at=NOW - ORPHAN_GRACE)), ""),
    ("unknown and old", facts(fold=None, instance=instance(created_at=NOW - ORPHAN_GRACE - 1)), "orphan"),
    ("unknown, of unknown age", facts(fold=None, instance=instance(created_at=0.0)), ""),
    ("unreadable and old", facts(fold=None, instance=instance(created_at=NOW - 9e6), unreadable=True), ""),
    (
        "unreadable, past its tag",
        facts(fold=None, instance=instance(tags=TAGS | {TAG_DEADLINE: "1699999000"}), unreadable=True),
        "expired",
    ),
]


@pytest.mark.parametrize(("case", "policy"), [pytest.param(case, policy, id=name) for name, case, policy in CASES])
def test_a_vm_is_judged_by_the_first_policy_that_has_a_reason(case: Observed, policy: str) -> None:
    judged = judge(case)
    assert (judged[0] if judged else "") == policy
    assert judged is None or judged[1]


UNSEEN: list[tuple[str, Observed, bool]] = [
    ("still there", facts(fold=fold(delete=Delete("why", "client"))), False),
    ("deleted", facts(instance=None, fold=fold(delete=Delete("why", "client"))), True),
    ("drained", facts(instance=None, fold=fold(drain=Drain("no work"))), True),
    ("closed already, and in the index", facts(instance=None, fold=fold(gone=Gone("seen"))), True),
    ("created, young", facts(instance=None, fold=fold(age=GRACE)), False),
    ("created, old", facts(instance=None, fold=fold(age=GRACE + 1)), True),
    ("only intended", facts(instance=None, fold=fold(cloud_id="", ready=False, age=GRACE + ORPHAN_GRACE)), False),
    (
        "intended long ago",
        facts(instance=None, fold=fold(cloud_id="", ready=False, age=GRACE + ORPHAN_GRACE + 1)),
        True,
    ),
    ("unreadable", facts(instance=None, fold=None, unreadable=True), False),
]


@pytest.mark.parametrize(("case", "gone"), [pytest.param(case, gone, id=name) for name, case, gone in UNSEEN])
def test_what_no_cloud_shows_is_gone_once_it_can_no_longer_appear(case: Observed, gone: bool) -> None:
    assert bool(vanished(case)) is gone


@pytest.mark.parametrize(
    ("changes", "mine"),
    [
        ({}, True),
        ({"name": "vmrun-other-name"}, False),
        ({"tags": {TAG_VM: VM}}, False),
        ({"tags": {TAG_OWNER: DEPLOYMENT}}, False),
        ({"tags": TAGS | {TAG_OWNER: "b" * 26}}, False),
        ({"tags": TAGS | {TAG_VM: "../x"}}, False),
        ({"tags": TAGS | {TAG_VM: "c" * 26}}, False),
    ],
)
def test_only_what_is_this_deployments_beyond_doubt_is_ours(changes: dict[str, Any], mine: bool) -> None:
    assert ours(instance(**changes), DEPLOYMENT) == (VM if mine else "")
    assert ours(instance(**changes), "") == ""


@pytest.mark.parametrize(
    ("dead", "alive", "unsure"), [(1, 0, False), (3, 0, False), (4, 0, True), (4, 4, False), (5, 4, True)]
)
def test_when_most_look_dead_it_is_rather_the_observer(dead: int, alive: int, unsure: bool) -> None:
    assert doubtful([facts(silent=500.0)] * dead + [facts(silent=1.0)] * alive) is unsure
