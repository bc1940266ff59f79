from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.core.world import ManualClock
from vmrun.core.clock import SystemClock, backoff, system_rng
from vmrun.core.errors import UsageError
from vmrun.core.ids import check_id, is_id, new_id


@given(st.integers(0, 2**32), st.floats(0, 4e10))
def test_an_id_has_the_form_of_an_id(seed: int, now: float) -> None:
    clock = ManualClock()
    clock.time = now

    assert is_id(new_id(clock, random.Random(seed)))


def test_ids_sort_by_time_of_birth_and_never_repeat() -> None:
    clock, rng = ManualClock(), random.Random(1)
    ids = []
    for _ in range(1000):
        ids.append(new_id(clock, rng))
        clock.sleep(0.01)

    assert ids == sorted(ids)
    assert len({new_id(clock, rng) for _ in range(1000)}) == 1000


def test_real_clock_and_randomness_make_ids() -> None:
    first, second = (new_id(SystemClock(), system_rng()) for _ in range(2))

    assert is_id(first)
    assert first != second


@pytest.mark.parametrize(
    "text",
    [
        "", "a" * 25, "a" * 27, "A" * 26, "i" * 26, "l" * 26, "o" * 26, "u" * 26, "a" * 26 + "\n", "\n" + "a" * 25,
        "../" + "a" * 23, "a" * 25 + "/", "a" * 25 + "\0", "é" * 26, "٣" * 26, "-" + "a" * 25, "$(id)" + "a" * 21,
    ],
)  # fmt: skip
def test_what_could_do_harm_in_a_path_is_no_id(text: str) -> None:
    assert not is_id(text)
    with pytest.raises(UsageError) as caught:
        check_id(text, "job")
    assert "job" in caught.value.message
    assert len(caught.value.message) < 200


def test_an_id_passes_its_check() -> None:
    assert check_id("0123456789abcdefghjkmnpqrs", "VM") == "0123456789abcdefghjkmnpqrs"


@given(st.integers(0, 10_000), st.integers(0, 2**32))
def test_back_off_is_bounded(attempt: int, seed: int) -> None:
    assert 0 <= backoff(attempt, random.Random(seed), base=0.05, cap=5.0) <= 5.0


def test_back_off_grows() -> None:
    longest = [max(backoff(attempt, random.Random(seed)) for seed in range(50)) for attempt in range(8)]

    assert longest == sorted(longest)
    assert longest[0] <= 0.05
    assert longest[-1] > 2.0
