"""Local machines for the tests of this folder."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.machines import Machines


@pytest.fixture
def machines(tmp_path: Path, rng: random.Random) -> Iterator[Machines]:
    made = Machines(tmp_path / "state", rng)
    yield made
    made.close()
