"""One thing goes wrong, at every point of a small history in turn. All points: `python -m tests.sim --points`."""

from __future__ import annotations

import pytest

from tests.sim.points import failed_requests, failures, losses

#: Of the points at which something is lost, every so many-th is tried here; before a commit, of all points.
STRIDE, LONG = 8, 32


def test_losing_a_machine_at_some_points_breaks_nothing(seed: int) -> None:
    assert list(failures(losses()[seed % LONG :: LONG])) == []


def test_some_requests_may_fail_before_or_after_or_land_late(seed: int) -> None:
    assert list(failures(failed_requests()[seed % 4 :: 4])) == []


@pytest.mark.slow
@pytest.mark.parametrize("part", range(2))
def test_losing_a_machine_at_any_point_breaks_nothing(part: int, seed: int) -> None:
    points = losses()
    tried = points[(seed + part * STRIDE // 2) % STRIDE :: STRIDE]

    assert len(points) > 1000
    assert list(failures(tried)) == []


@pytest.mark.slow
def test_any_request_may_fail_before_or_after_or_land_late() -> None:
    points = failed_requests()

    assert len(points) > 150
    assert list(failures(points)) == []
