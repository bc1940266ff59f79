"""What the tests of the driver and of the estate share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clouds.ibm import Pace, open_double
from tests.clouds.machines import PaperMachines
from tests.clouds.trouble import Script

from .world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    pace = Pace(pending=0.01, starting=0.01, stopping=0.01, deleting=0.02)
    double = open_double(PaperMachines(), "127.0.0.1", Script(), pace=pace)
    yield World(double, tmp_path)
    double.close()
