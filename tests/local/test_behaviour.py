"""The local driver does what every provisioner does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.local.machines import Machines
from tests.suites.provisioner import BEHAVIOURS, Harness, name


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=name)
def test_local_machines(behaviour: Callable[[Harness], None], machines: Machines) -> None:
    behaviour(machines)
