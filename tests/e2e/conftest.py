"""A shell per test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.shell import Shell


@pytest.fixture
def shell(isolated: Path) -> Shell:
    return Shell(isolated)
