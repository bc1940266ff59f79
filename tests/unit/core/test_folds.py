"""Folds alone: entries in, meaning out. Whatever late, foreign or wrong writers append, decisions stand."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.core.world import DEPLOYMENT, FUNCTION, JOB, OTHER_JOB, OTHER_VM, VM, intent, job_spec, ready
from vmrun.core.folds import JobFold, ShardFold, VmFold
from vmrun.core.model import ShardPlan
from vmrun.core.records import (
    Alive,
    Assign,
    BlockRef,
    Cancel,
    Claim,
    Close,
    Created,
    Delete,
    Drain,
    Entry,
    Failed,
    FileRef,
    Final,
    Gone,
    Ready,
    Record,
    Release,
    Results,
    Submit,
    Suspect,
    Tasks,
)

CLIENT, AGENT, OTHER_AGENT = "client", f"vm:{VM}", f"vm:{OTHER_VM}"


def teller(fold: JobFold | ShardFold | VmFold) -> Callable[..., None]:
    """Applies further entries, numbered on from the last one."""
    numbers = itertools.count()

    def tell(*written: tuple[str, Record | None]) -> None:
        for writer, body in written:
            n = next(numbers)
            fold.apply(Entry(n, writer, "", 1000.0 + n, body))

    return tell


# --- jobs ---

SUBMIT = Submit(JOB, job_spec(), DEPLOYMENT)
OPEN = Submit(JOB, job_spec(kind="open"), DEPLOYMENT)


def a_job(submit: Submit = SUBMIT) -> tuple[JobFold, Callable[..., None]]:
    fold = JobFold()
    tell = teller(fold)
    tell((CLIENT, submit))
    return fold, tell


def test_a_job_is_what_its_first_entry_says() -> None:
    fold, tell = a_job()
    tell((CLIENT, dataclasses.replace(SUBMIT, job=OTHER_JOB)))

    assert fold.submit == SUBMIT
    assert (fold.tasks, fold.complete, fold.is_open) == (12, True, False)
    assert [(plan.first, plan.count) for plan in fold.shards()] == [(0, 4), (4, 4), (8, 4)]


def test_a_submission_in_second_place_is_none() -> None:
    fold = JobFold()
    for n, body in enumerate((Cancel("early"), SUBMIT)):
        fold.apply(Entry(n, CLIENT, "", 0.0, body))

    assert fold.submit is None
    assert not fold.complete
    assert list(fold.shards()) == []


def test_the_last_shard_holds_the_rest_and_the_reduce_follows() -> None:
    fold, _tell = a_job(Submit(JOB, job_spec(tasks=10, shard_size=4, reduce=True), DEPLOYMENT))

    assert [(p.shard, p.first, p.count, p.reduce) for p in fold.shards()] == [
        (0, 0, 4, False), (1, 4, 4, False), (2, 8, 2, False), (3, 10, 1, True),
    ]  # fmt: skip
    assert (fold.spec.shards, fold.spec.total) == (3, 11)


def test_a_job_without_inputs_has_no_shards_and_no_reduce() -> None:
    fold, _tell = a_job(Submit(JOB, job_spec(tasks=0, shard_size=0, reduce=True), DEPLOYMENT))

    assert list(fold.shards()) == []
    assert fold.complete
    assert fold.spec.total == 0


def test_the_first_final_counts() -> None:
    fold, tell = a_job()
    tell((AGENT, Final("done", 12, 0)), (CLIENT, Final("failed", 0, 12)))

    assert fold.final == Final("done", 12, 0)
    assert fold.ended_at == 1001.0


def test_a_vm_may_declare_the_end_and_nothing_else() -> None:
    fold, tell = a_job(OPEN)
    before = dataclasses.replace(fold, added=list(fold.added))
    tell((AGENT, Tasks(0, 1, FUNCTION)), (AGENT, Close()), (AGENT, Cancel("evil")), (AGENT, OPEN), (AGENT, None))

    assert fold == before
    tell((AGENT, Final("failed", 0, 0)))
    assert fold.final is not None


def test_tasks_follow_on_from_each_other() -> None:
    fold, tell = a_job(OPEN)
    tell(
        (CLIENT, Tasks(0, 3, FUNCTION)),
        (CLIENT, Tasks(0, 2, FUNCTION)),  # a second client that had not seen the first
        (CLIENT, Tasks(4, 1, FUNCTION)),  # a gap
        (CLIENT, Tasks(3, 0, FUNCTION)),
        (CLIENT, Tasks(3, -1, FUNCTION)),
        (CLIENT, Tasks(3, 2, FUNCTION)),
        (CLIENT, Close()),
        (CLIENT, Tasks(5, 1, FUNCTION)),
    )

    assert [(plan.shard, plan.first, plan.count, plan.entry) for plan in fold.shards()] == [(0, 0, 3, 1), (1, 3, 2, 6)]
    assert (fold.tasks, fold.complete) == (5, True)


def test_tasks_are_not_added_to_a_job_that_is_not_open() -> None:
    fold, tell = a_job()
    tell((CLIENT, Tasks(12, 3, FUNCTION)))

    assert fold.tasks == 12
    assert fold.added == []


def test_the_first_canceller_is_named() -> None:
    fold, tell = a_job()
    tell((CLIENT, Cancel("")), (CLIENT, Cancel("me")))

    assert fold.cancelled_by == "somebody"


# --- shards ---

PLAN = ShardPlan(1, 10, 10)


def block(first: int, count: int, *, mark: str = "", failed: tuple[tuple[int, int], ...] = ()) -> BlockRef:
    return BlockRef(first, count, 0, 1, mark, failed=failed)


def a_shard() -> tuple[ShardFold, Callable[..., None]]:
    fold = ShardFold(PLAN)
    return fold, teller(fold)


def told(vm: str, *blocks: BlockRef, files: tuple[FileRef, ...] = ()) -> tuple[str, Record]:
    return f"vm:{vm}", Results(vm, 0, blocks, files)


def test_the_first_outcome_of_a_task_is_its_outcome() -> None:
    fold, tell = a_shard()
    tell(
        told(VM, block(12, 3, mark="a", failed=((13, 14),))),
        told(OTHER_VM, block(10, 10, mark="b", failed=((10, 20),))),
        told(VM, block(10, 10, mark="c")),
    )

    assert [(e.first, e.end, e.entry, e.block.sha256, e.failed) for e in fold.extents] == [
        (12, 15, 0, "a", ((13, 14),)),
        (10, 12, 1, "b", ((10, 12),)),
        (15, 20, 1, "b", ((15, 20),)),
    ]
    assert fold.complete
    assert list(fold.failed) == [(10, 12), (13, 14), (15, 20)]
    assert fold.remaining() == []


def test_within_one_entry_the_first_block_counts() -> None:
    fold, tell = a_shard()
    tell(told(VM, block(10, 2, mark="a"), block(11, 2, mark="b")))

    assert [(e.first, e.end, e.block.sha256) for e in fold.extents] == [(10, 12, "a"), (12, 13, "b")]


def test_outcomes_outside_the_shard_never_count() -> None:
    fold, tell = a_shard()
    tell(told(VM, block(9, 2), block(19, 2), block(0, 5), block(10, 0), block(12, -1), block(20, 1)))

    assert fold.extents == []
    assert fold.remaining() == [(10, 20)]


def test_failures_outside_their_block_never_count() -> None:
    fold, tell = a_shard()
    tell(told(VM, block(10, 2, failed=((0, 11), (15, 18), (12, 11), (-5, -3)))))

    assert list(fold.failed) == [(10, 11)]


def test_a_vm_speaks_for_itself_only() -> None:
    fold, tell = a_shard()
    tell((AGENT, Claim(VM)))
    tell(
        (OTHER_AGENT, Claim(VM)),
        (OTHER_AGENT, Release(VM, "forged")),
        (OTHER_AGENT, Results(VM, 0, (block(10, 1),))),
        (CLIENT, Claim(VM)),
        (CLIENT, Results(VM, 0, (block(10, 1),))),
        (OTHER_AGENT, None),
    )

    assert (fold.owner, fold.epoch, fold.claimants) == (VM, 0, {VM})
    assert fold.extents == []


def test_takeover_and_release() -> None:
    fold, tell = a_shard()
    tell((AGENT, Claim(VM)), told(VM, block(10, 4)), (OTHER_AGENT, Claim(OTHER_VM)))
    assert (fold.owner, fold.epoch, fold.claimants) == (OTHER_VM, 2, {VM, OTHER_VM})

    # What was committed stays; the old owner gives back nothing any more, but its finished work still counts.
    tell((AGENT, Release(VM, "late")), told(VM, block(14, 1)))
    assert fold.owner == OTHER_VM
    assert fold.remaining() == [(15, 20)]

    tell((OTHER_AGENT, Release(OTHER_VM, "preempted")))
    assert fold.owner == ""
    assert fold.remaining() == [(15, 20)]


def test_files_count_with_their_outcome() -> None:
    fold, tell = a_shard()
    mine, late, foreign = (FileRef(task, f"{task}.csv", "0" * 64, 1) for task in (10, 10, 12))
    tell(
        told(VM, block(10, 1), files=(mine, foreign)),
        told(OTHER_VM, block(10, 2), files=(late,)),
    )

    assert fold.files == [mine]


@given(
    st.lists(
        st.tuples(st.sampled_from([VM, OTHER_VM]), st.integers(5, 22), st.integers(-1, 8), st.booleans()), max_size=12
    )
)
def test_outcomes_never_flip(commits: list[tuple[str, int, int, bool]]) -> None:
    fold, tell = a_shard()
    settled: dict[int, str] = {}
    for mark, (vm, first, count, all_failed) in enumerate(commits):
        failed = ((first, first + count),) if all_failed else ()
        tell(told(vm, block(first, count, mark=str(mark), failed=failed)))
        if first >= PLAN.first and first + count <= PLAN.end:
            for task in range(first, first + count):
                settled.setdefault(task, str(mark))

        now = {task: e.block.sha256 for e in fold.extents for task in range(e.first, e.end)}
        assert now == settled
        assert sum(e.end - e.first for e in fold.extents) == len(settled) == len(fold.done)
        assert {t for a, b in fold.failed for t in range(a, b)} == {t for t, m in settled.items() if commits[int(m)][3]}


# --- VMs ---


def a_vm(*written: tuple[str, Record | None]) -> tuple[VmFold, Callable[..., None]]:
    fold = VmFold()
    tell = teller(fold)
    tell((CLIENT, intent()), *written)
    return fold, tell


READY = ((CLIENT, Created("i-1")), (CLIENT, ready()))


def test_a_vm_lives_through_its_phases() -> None:
    fold = VmFold()
    tell = teller(fold)
    assert fold.phase == "unknown"
    for entry, phase in (
        ((CLIENT, intent()), "intended"),
        ((CLIENT, Created("i-1")), "booting"),
        ((CLIENT, ready()), "ready"),
        ((CLIENT, Suspect("reaper")), "suspected"),
        ((AGENT, Alive()), "ready"),
        ((CLIENT, Assign(OTHER_JOB)), "ready"),
        ((AGENT, Drain("idle")), "draining"),
        ((CLIENT, Delete("idle", "reaper")), "deleting"),
        ((CLIENT, Gone("not listed")), "gone"),
    ):
        tell(entry)
        assert fold.phase == phase
    assert fold.jobs == [JOB, OTHER_JOB]
    assert fold.ended
    assert not fold.assignable


def test_nothing_but_gone_counts_after_delete() -> None:
    fold, tell = a_vm(*READY, (CLIENT, Delete("idle", "one")))
    before = dataclasses.replace(fold, jobs=list(fold.jobs))
    tell(
        (CLIENT, Assign(OTHER_JOB, 99.0)),
        (CLIENT, Delete("dead", "two")),
        (CLIENT, Created("i-2")),
        (CLIENT, Failed("quota", "")),
        (CLIENT, Suspect("x")),
        (AGENT, Alive()),
        (AGENT, Drain("x")),
        (CLIENT, intent(job=OTHER_JOB)),
        (CLIENT, dataclasses.replace(ready(), agent_key="00")),
    )
    assert fold == before

    tell((CLIENT, Gone("seen")), (CLIENT, Gone("seen again")), (CLIENT, Assign(OTHER_JOB)))
    assert fold == dataclasses.replace(before, gone=Gone("seen"), gone_at=fold.gone_at)


def test_nothing_counts_after_gone() -> None:
    fold, tell = a_vm(*READY, (CLIENT, Gone("deleted by hand")))
    tell((CLIENT, Assign(OTHER_JOB)), (CLIENT, Delete("late", "x")), (AGENT, Drain("x")))

    assert (fold.jobs, fold.delete, fold.drain) == ([JOB], None, None)
    assert fold.ended


def test_an_id_that_was_condemned_first_cannot_be_intended() -> None:
    fold = VmFold()
    for n, body in enumerate((Delete("orphan", "reaper"), intent())):
        fold.apply(Entry(n, CLIENT, "", 0.0, body))

    assert fold.intent is None
    assert fold.ended


def test_an_intent_in_second_place_is_none() -> None:
    fold, _tell = a_vm((CLIENT, intent(job=OTHER_JOB)))

    assert fold.jobs == [JOB]


def test_after_drain_no_job_is_given() -> None:
    fold, _tell = a_vm(*READY, (AGENT, Drain("idle")), (CLIENT, Assign(OTHER_JOB, 5.0)))

    assert fold.jobs == [JOB]
    assert fold.keep_warm == 60.0
    assert not fold.assignable


def test_a_vm_writes_alive_and_drain_of_its_own_and_nothing_else() -> None:
    fold, tell = a_vm(*READY, (CLIENT, Suspect("reaper")))
    before = dataclasses.replace(fold, jobs=list(fold.jobs))
    forbidden: tuple[Record, ...] = (
        Assign(OTHER_JOB), Delete("x", "x"), Gone("x"), Created("x"), Failed("x", "x"), Suspect("x"), intent(),
        Ready(agent_key="00", boot_id="x"), Claim(VM), Final("done", 1, 0),
    )  # fmt: skip
    tell(*((AGENT, body) for body in forbidden), (AGENT, None))
    tell(*((OTHER_AGENT, body) for body in (*forbidden, Alive(), Drain("x"))))
    assert fold == before

    tell((AGENT, Alive()), (AGENT, Drain("x")))
    assert not fold.suspected
    assert fold.drain is not None


def test_only_the_first_ready_names_the_key() -> None:
    fold, _tell = a_vm(*READY, (CLIENT, dataclasses.replace(ready(), agent_key="00" * 16)))

    assert fold.ready == ready()


def test_a_suspected_vm_is_given_no_job_until_it_answers() -> None:
    fold, tell = a_vm(*READY, (CLIENT, Suspect("reaper")))
    assert not fold.assignable

    tell((AGENT, Alive()))
    assert fold.assignable


def test_a_refused_creation_ends_the_vm_and_may_still_be_condemned() -> None:
    fold, tell = a_vm((CLIENT, Failed("quota", "no more of these")))
    assert (fold.phase, fold.ended) == ("failed", True)

    tell((CLIENT, Delete("a twin was seen", "reaper")))
    assert fold.delete is not None


def test_entries_of_newer_versions_are_passed_over() -> None:
    fold, _tell = a_vm(*READY, (CLIENT, None))

    assert fold == a_vm(*READY)[0]


VM_ENTRIES = st.lists(
    st.tuples(
        st.sampled_from([CLIENT, AGENT, OTHER_AGENT]),
        st.sampled_from(
            [
                Created("i-1"), Failed("quota", ""), ready(), Assign(OTHER_JOB), Suspect("r"), Alive(), Drain("d"),
                Delete("d", "r"), Gone("g"), intent(job=OTHER_JOB), None,
            ]
        ),
    ),
    max_size=12,
)  # fmt: skip


@given(VM_ENTRIES)
def test_no_order_of_entries_brings_a_vm_back(written: list[tuple[str, Record | None]]) -> None:
    fold, tell = a_vm()
    ended = drained = False
    jobs = list(fold.jobs)
    for entry in written:
        tell(entry)
        assert fold.ended or not ended
        assert not ended or fold.jobs == jobs or fold.failed is not None
        assert not drained or fold.jobs == jobs
        assert not (fold.ended and fold.assignable)
        ended, drained, jobs = fold.ended, fold.drain is not None, list(fold.jobs)
