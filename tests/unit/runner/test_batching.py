"""When outcomes travel together, and when they go at once."""

from __future__ import annotations

import math
import random

import pytest

from vmrun.agent.runner.batching import BYTES_MAX, LONGEST, PART, SHORTEST, Batching, hold_of


@pytest.mark.parametrize(
    ("seconds", "hold"), [(0.0, 0.0), (1e-6, 0.0), (0.04, 0.0), (0.05, 0.001), (1.0, 0.02), (2.5, 0.05), (3600.0, 0.05)]
)
def test_an_outcome_waits_a_small_part_of_the_time_of_its_task(seconds: float, hold: float) -> None:
    assert hold_of(seconds) == pytest.approx(hold)


def test_what_comes_in_the_second_half_takes_the_others_along() -> None:
    batching = Batching()
    assert not batching.waits
    assert batching.due == math.inf
    assert batching.holds(100, 0.02, 50.0)
    assert batching.waits
    assert batching.due == pytest.approx(50.02)
    assert batching.holds(200, 0.02, 50.009)
    assert batching.due == pytest.approx(50.02)
    assert not batching.holds(300, 0.02, 50.011)
    assert (batching.waits, batching.due) == (False, math.inf)


@pytest.mark.parametrize(("pending", "hold"), [(0, 0.02), (BYTES_MAX + 1, 0.02), (100, 0.0)])
def test_nothing_waits_that_is_not_worth_it(pending: int, hold: float) -> None:
    batching = Batching()
    assert batching.holds(100, 0.02, 50.0)
    assert not batching.holds(pending, hold, 50.001)
    assert not batching.waits


@pytest.mark.parametrize("seed", range(20))
def test_no_outcome_waits_longer_than_it_may_and_few_sends_are_enough(seed: int) -> None:
    rng = random.Random(seed)
    batching, now, waiting, sends, outcomes = Batching(), 0.0, list[float](), 0, 0
    arrival = 0.0
    while outcomes < 1000:
        # Whichever comes first: the next outcome, of a worker among 128 with tasks of a second, or what is due
        now = min(arrival, batching.due)
        if now == arrival:
            waiting.append(now)
            outcomes += 1
            arrival += rng.expovariate(128)
        if not batching.holds(100 * len(waiting), hold_of(1.0), now):
            assert now - waiting[0] <= max(PART, SHORTEST) + 1e-9
            waiting.clear()
            sends += 1
    assert hold_of(1.0) < LONGEST
    assert sends < outcomes / 2
