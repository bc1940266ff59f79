"""How many tasks a worker gets, and that the queue neither loses, doubles nor reorders a task."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from vmrun.agent.runner.chunks import BRIEF, CHUNK_BYTES, LEAST, LITTLE, SHORT, TARGET, Sizer, Work, WorkQueue
from vmrun.agent.runner.shared import CAPACITY
from vmrun.core.blocks import TaskBlock, lengths_of

MANY = 10_000_000


def block(first: int, payloads: list[bytes]) -> TaskBlock:
    return TaskBlock(first, lengths_of(payloads), b"".join(payloads))


def numbered(first: int, count: int) -> TaskBlock:
    return block(first, [b"%d" % number for number in range(first, first + count)])


def contents(work: Work) -> list[tuple[int, bytes]]:
    return [(number, bytes(payload)) for number, payload in work.block.items()]


# --- sizes ---


def test_nothing_known_means_one_task() -> None:
    assert Sizer().size(MANY, 2) == 1


def test_microsecond_tasks_are_soon_sent_by_the_thousand() -> None:
    sizer = Sizer()
    sizes = []
    for _ in range(6):
        sizes.append(sizer.size(MANY, 2))
        sizer.learn(sizes[-1], sizes[-1] * 3e-6)
    assert sizes[0] == 1
    assert sizes == sorted(sizes)
    assert sizes[-1] == min(int(TARGET / 3e-6), CAPACITY)


def test_a_chunk_never_exceeds_the_rows_of_the_shared_memory() -> None:
    sizer = Sizer()
    for _ in range(10):
        sizer.learn(sizer.size(MANY, 1), 1e-9)
    assert sizer.size(MANY, 1) == CAPACITY


def test_long_tasks_are_sent_one_by_one() -> None:
    sizer = Sizer()
    sizer.learn(1, 2.0)
    assert sizer.size(MANY, 2) == 1
    assert not sizer.below(BRIEF)


def test_one_slow_first_call_is_forgotten_within_a_few_chunks() -> None:
    """The first call may import for a second what all others then have."""
    sizer = Sizer()
    sizer.learn(1, 1.0)
    chunks = 0
    while sizer.size(MANY, 2) < 1000:
        size = sizer.size(MANY, 2)
        sizer.learn(size, size * 3e-6)
        chunks += 1
    assert chunks <= 8


def test_a_task_that_turns_out_slow_shrinks_chunks_at_once() -> None:
    sizer = Sizer()
    for _ in range(5):
        sizer.learn(1000, 1000 * 3e-6)
    sizer.learn(10, 10.0)
    assert sizer.size(MANY, 2) == 1


def test_chunks_shrink_towards_the_end_so_that_all_workers_finish_together() -> None:
    sizer = Sizer()
    for _ in range(5):
        sizer.learn(5000, 5000 * 3e-6)
    waiting, sizes = 40_000, []
    while waiting:
        sizes.append(min(waiting, sizer.size(waiting, 4)))
        waiting -= sizes[-1]
    assert sizes[0] == 5000
    # From where there is little left on, the parts are as large as is worth the handing out.
    little = next(at for at in range(len(sizes)) if sum(sizes[at:]) * 3e-6 < LITTLE * 4)
    assert sizes[:little] == sorted(sizes[:little], reverse=True)
    assert all(size >= int(LEAST / 3e-6) for size in sizes)
    assert sizes[-1] < 2 * int(LEAST / 3e-6)


def test_long_tasks_are_handed_out_one_by_one_towards_the_end() -> None:
    sizer = Sizer()
    for _ in range(5):
        sizer.learn(10, 10 * 2e-3)
    waiting, sizes = 100, []
    while waiting:
        sizes.append(min(waiting, sizer.size(waiting, 4)))
        waiting -= sizes[-1]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-8:] == [1] * 8


def test_only_short_tasks_may_wait_at_a_busy_worker() -> None:
    unknown, short, long = Sizer(), Sizer(), Sizer()
    short.learn(1, SHORT / 2)
    long.learn(1, SHORT * 2)
    assert [sizer.below(SHORT) for sizer in (unknown, short, long)] == [False, True, False]


@given(
    st.lists(st.tuples(st.integers(0, 100_000), st.floats(0, 1e5)), max_size=20),
    st.integers(1, MANY),
    st.integers(1, 512),
)
def test_a_size_is_always_usable(history: list[tuple[int, float]], waiting: int, workers: int) -> None:
    sizer = Sizer()
    for count, seconds in history:
        sizer.learn(count, seconds)
    assert 1 <= sizer.size(waiting, workers) <= CAPACITY


# --- the queue ---


def test_tasks_come_out_in_order_across_blocks_and_never_mix_functions() -> None:
    queue = WorkQueue()
    queue.add(Work("f", numbered(0, 5)))
    queue.add(Work("g", numbered(5, 2), attempt=1))
    taken = [queue.take(3) for _ in range(3)]
    assert [(work.function, work.attempt, work.block.count) for work in taken] == [
        ("f", 0, 3),
        ("f", 0, 2),
        ("g", 1, 2),
    ]
    assert [number for work in taken for number, _ in contents(work)] == list(range(7))
    assert (queue.tasks, queue.bytes) == (0, 0)


def test_what_is_queued_first_comes_before_the_rest_of_a_block_that_was_begun() -> None:
    queue = WorkQueue()
    queue.add(Work("f", numbered(0, 6)))
    begun = queue.take(4)
    queue.add_first(Work("f", numbered(100, 2)))
    queue.add_first(Work("f", begun.block.slice(2, 2)))
    assert [number for _ in range(3) for number, _ in contents(queue.take(9))] == [2, 3, 100, 101, 4, 5]


def test_a_chunk_of_large_arguments_is_bounded_in_bytes_but_never_empty() -> None:
    queue = WorkQueue()
    large = CHUNK_BYTES // 2
    queue.add(Work("f", block(0, [bytes(large), bytes(large), bytes(1), bytes(CHUNK_BYTES * 2), bytes(1)])))
    assert [queue.take(100).block.count for _ in range(4)] == [2, 1, 1, 1]


def test_no_tasks_are_no_work() -> None:
    queue = WorkQueue()
    queue.add(Work("f", numbered(0, 0)))
    queue.add_first(Work("f", numbered(0, 0)))
    assert queue.tasks == 0
    assert queue.take_all() == []


def test_a_slice_of_work_knows_its_bytes() -> None:
    work = Work("f", block(10, [b"a", b"bb", b"ccc"]))
    assert work.size(11, 2) == 5
    assert work.end == 13


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_every_task_is_taken_exactly_once(counts: list[int], rng: random.Random) -> None:
    """Whatever is taken, partly given back, and taken again: each task is accounted for once, with its own bytes."""
    queue = WorkQueue()
    first = 0
    for count in counts:
        queue.add(Work("f", numbered(first, count)))
        first += count
    seen: dict[int, bytes] = {}
    while queue.tasks:
        work = queue.take(rng.randint(1, 9))
        kept = rng.randint(0, work.block.count)
        if not kept and rng.random() < 0.5:
            kept = work.block.count
        for number, payload in contents(work)[:kept]:
            assert number not in seen
            seen[number] = payload
        queue.add_first(Work("f", work.block.slice(work.block.first + kept, work.block.count - kept)))
    assert seen == {number: b"%d" % number for number in range(first)}
    assert queue.bytes == 0


def test_the_last_little_work_is_divided_by_what_each_has_already() -> None:
    sizer = Sizer()
    sizer.learn(1000, 1000 * 0.25e-6)
    assert sizer.little(8000, 2)
    # One has 2000 already: of 10,000 in all, the other gets its half first, then the one the rest of its own.
    other = sizer.size(8000, 2, given=2000, own=0)
    assert other == 5000
    assert sizer.size(8000 - other, 2, given=2000 + other, own=2000) >= 3000
    # Too little to be divided: whoever asks first gets it.
    assert sizer.size(100, 2, given=9000, own=9000) == 100
    # Who has more than its share already gets the least.
    assert sizer.size(4000, 2, given=9000, own=9000) == 1
