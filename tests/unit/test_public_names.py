"""`import vmrun`: each public name is what it says, whatever was used before it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import vmrun


@pytest.mark.parametrize("name", sorted(vmrun.__all__))
def test_a_public_name_is_the_same_after_any_other(name: str) -> None:
    """Some names are also those of modules, which the import system puts in the same place."""
    program = (
        "import sys, types, vmrun\n"
        f"getattr(vmrun, {name!r})\n"
        "print(*[other for other in vmrun.__all__ if isinstance(getattr(vmrun, other), types.ModuleType)])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout.split() == []
