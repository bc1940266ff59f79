"""Benches for engines, closed after each test; nothing may be left of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.bench import Bench

MakeBench = Callable[..., Bench]


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[MakeBench]:
    benches: list[Bench] = []

    def make(**options: Any) -> Bench:
        benches.append(Bench(tmp_path / str(len(benches)), **options))
        return benches[-1]

    yield make
    for bench in benches:
        bench.close()
        assert not bench.directory.exists()


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    """An engine with two workers."""
    return make_bench()
