"""The simulation catches every sabotage, and would not cry wolf where it looks for it."""

from __future__ import annotations

import pytest

from tests.sim.knobs import draw
from tests.sim.mutants import MUTANTS, Mutant
from tests.sim.scenario import play


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_sabotaged_protocol_is_caught(mutant: Mutant) -> None:
    caught = mutant.caught()

    assert caught is not None, f"{mutant.name} survived {mutant.seeds} seeds: nothing tests that {mutant.breaks}"
    print(f"after {caught[0]} seeds: {caught[1]}")


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_unsabotaged_protocol_is_not(mutant: Mutant) -> None:
    for seed in range(4):
        play(seed, knobs=mutant.bend(draw(seed)))


def test_sabotage_ends_with_its_test() -> None:
    def now() -> list[object]:
        return [getattr(mutant.owner, mutant.attribute) for mutant in MUTANTS]

    before = now()
    for mutant in MUTANTS:
        with mutant.at_work():
            assert now() != before

    assert now() == before
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
