"""Worlds in which machines boot, with the jobs that the clients submit."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docker.machines import engine_fault
from tests.nets.flights import write_jobs
from tests.nets.worlds import World, open_world

OpenBooted = Callable[..., World]


@pytest.fixture
def open_booted(isolated: Path, tmp_path: Path) -> Iterator[OpenBooted]:
    """Opens a world as `open_world` does; its machines are gone after the test."""
    if fault := engine_fault():
        pytest.skip(fault)
    with contextlib.ExitStack() as stack:

        def open_one(on: str, *, trusted: bool = True) -> World:
            world = stack.enter_context(open_world(on, isolated, tmp_path, trusted=trusted))
            write_jobs(world.shell)
            return world

        yield open_one
