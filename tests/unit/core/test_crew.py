"""How many workers and threads a job has on a machine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmrun.core.crew import RESERVE_MAX, Asked, crew_of, fits, usable_memory
from vmrun.core.errors import UsageError

GB = 10**9


@pytest.mark.parametrize(
    ("cores", "memory", "asked", "crew"),
    [
        (128, 512 * GB, Asked(), (128, 1, "cores")),
        (128, 512 * GB, Asked(threads=4), (32, 4, "cores")),
        (128, 512 * GB, Asked(threads=1000), (1, 1000, "cores")),
        (128, 512 * GB, Asked(workers=8), (8, 16, "asked")),
        (128, 512 * GB, Asked(workers=8, threads=2), (8, 2, "asked")),
        (2, 8 * GB, Asked(workers=200), (200, 1, "asked")),
        # As many as fit beside the reserve; the cores that are left over go to the threads of those.
        (128, 512 * GB, Asked(memory=8 * GB), (63, 2, "memory")),
        (128, 512 * GB, Asked(memory=3 * GB), (128, 1, "cores")),
        (128, 512 * GB, Asked(workers=100, memory=8 * GB), (63, 2, "memory")),
        (128, 512 * GB, Asked(threads=4, memory=100 * GB), (5, 4, "memory")),
        # Without knowledge of the memory nothing is held against it.
        (4, 0, Asked(memory=8 * GB), (4, 1, "cores")),
    ],
)
def test_crews(cores: int, memory: int, asked: Asked, crew: tuple[int, int, str]) -> None:
    found = crew_of(cores, memory, asked)
    assert (found.workers, found.threads, found.bound) == crew


def test_a_machine_on_which_not_one_task_fits_is_refused_with_numbers() -> None:
    with pytest.raises(UsageError) as caught:
        crew_of(8, 16 * GB, Asked(memory=16 * GB))
    assert "may take 16 GB (--task-memory)" in caught.value.message
    assert "16 GB tasks can use 15.5 GB" in caught.value.message
    assert "--memory" in caught.value.hint


@given(st.integers(1, 512), st.integers(2**20, 2**45), st.integers(0, 512), st.integers(0, 64), st.integers(1, 2**42))
def test_no_more_than_fit_and_never_none(cores: int, memory: int, workers: int, threads: int, each: int) -> None:
    assert memory * 3 // 4 <= usable_memory(memory) < memory
    assert usable_memory(memory) >= memory - RESERVE_MAX
    if not fits(memory, each):
        with pytest.raises(UsageError):
            crew_of(cores, memory, Asked(workers, threads, each))
        return
    crew = crew_of(cores, memory, Asked(workers, threads, each))
    assert crew.workers >= 1
    assert crew.threads >= 1
    assert crew.workers * each <= usable_memory(memory)
    assert not workers or crew.workers <= workers
