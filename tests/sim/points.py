"""Every point of a small history: each machine lost, or each request failed, exactly there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tests.sim.knobs import Knobs, calm
from tests.sim.scenario import play

SEED = 1


@dataclass(frozen=True)
class Point:
    """One thing that goes wrong in a world where nothing else does."""

    name: str
    knobs: Knobs


def losses() -> list[Point]:
    """Each process of each machine killed at each of its waits, and machines lost for ever."""
    points = []
    for machine, steps in play(SEED, knobs=calm()).steps.items():
        for what in ("crash", "restart") if machine.startswith("vm") else ("restart",):
            points += [
                Point(f"{what} of {machine} at wait {step}", replace(calm(), strikes=((machine, step, what, 20.0),)))
                for step in range(1, steps + 1)
            ]
    return points


def failed_requests() -> list[Point]:
    """Each write to the store, and each call that changes the cloud, failed before, failed after, and landed late."""
    whole = play(SEED, knobs=calm())
    writes = [
        Point(f"write {number} fails {fate}", replace(calm(), fates=((number, fate),)))
        for number in range(1, whole.writes + 1)
        for fate in ("before", "after", "late")
    ]
    calls = [
        Point(f"cloud call {number} fails {fate}", replace(calm(), cloud_fates=((number, fate),)))
        for number in range(1, whole.calls + 1)
        for fate in ("before", "after", "late")
    ]
    return writes + calls


def failures(points: list[Point]) -> Iterator[str]:
    """What breaks a rule, and how."""
    for point in points:
        try:
            play(SEED, knobs=point.knobs)
        except Exception as error:
            yield f"{point.name}: {type(error).__name__}: {error}"
