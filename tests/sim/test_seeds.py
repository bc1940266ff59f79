"""500 histories, each from its seed: no rule is broken, and the rare states are really reached."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from tests.conftest import DEFAULT_SEED, base_seed
from tests.sim.run import Tally, how_to_replay, play_all, too_seldom
from tests.sim.scenario import play

SEEDS, CHUNK = 500, 50
#: Another VMRUN_TEST_SEED plays other histories.
FIRST = 0 if base_seed() == DEFAULT_SEED else zlib.crc32(base_seed().encode()) % 1_000_000 * SEEDS
STARTS = range(FIRST, FIRST + SEEDS, CHUNK)
#: Before a commit the first of them alone is played.
PARTS = [pytest.param(start, marks=pytest.mark.slow if start != FIRST else ()) for start in STARTS]


@pytest.fixture
def tallies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that all chunks of this run share, in whichever process they are played."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if os.environ.get("PYTEST_XDIST_WORKER") else root
    path = root / "tallies"
    path.mkdir(exist_ok=True)
    return path


@pytest.mark.parametrize("start", PARTS)
def test_no_history_breaks_a_rule(start: int, tallies: Path) -> None:
    tally = play_all(start, CHUNK)

    assert not tally.failures, how_to_replay(tally.failures)
    (tallies / f"{start}.new").write_text(json.dumps(tally.seen))
    (tallies / f"{start}.new").rename(tallies / f"{start}.json")
    # Whoever is last sees all chunks, and judges whether they got where they must.
    parts = [tallies / f"{each}.json" for each in STARTS]
    if all(part.exists() for part in parts):
        whole = Tally(seeds=SEEDS)
        for part in parts:
            whole.seen.update(json.loads(part.read_text()))
        assert too_seldom(whole) == []


def test_a_seed_is_a_history() -> None:
    for seed in range(8):
        lines: list[str] = []
        first, again = play(seed), play(seed, trace=lines.append)
        assert (first.digest, first.events, first.seen) == (again.digest, again.events, again.seen)
        assert len(lines) == again.events
    assert play(0).digest != play(1).digest


def test_a_seed_is_the_same_history_in_another_process() -> None:
    for hash_seed in ("1", "2"):
        shown = subprocess.run(
            [sys.executable, "-m", "tests.sim", "--seed", "3"],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        assert f"hash {play(3).digest:08x}" in shown


def test_a_failure_says_how_to_see_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(seed: int) -> None:
        if seed == 12:
            raise AssertionError("a rule")
        return play(seed)

    monkeypatch.setattr("tests.sim.run.play", broken)
    tally = play_all(10, 4)

    assert tally.failures == [(12, "AssertionError: a rule")]
    assert "python -m tests.sim --seed 12" in how_to_replay(tally.failures)
