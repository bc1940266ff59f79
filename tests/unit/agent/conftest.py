"""The agent's bench, with and without faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.agent.bench import Bench, Switch, engine

__all__ = ["bench", "engine", "switch"]


@pytest.fixture
def switch() -> Switch:
    return Switch()


@pytest.fixture
def bench(tmp_path: Path, switch: Switch) -> Bench:
    return Bench(tmp_path, switch)
