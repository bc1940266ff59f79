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


def test_a_function_of_main_may_name_the_package() -> None:
    """Such functions are pickled by value, with the modules that they name, and plain pickle has no way with ours."""
    program = (
        "import pickle, cloudpickle, vmrun\n"
        "def f(): return vmrun.shared.__name__\n"
        "g = pickle.loads(cloudpickle.dumps(f))\n"
        "print(g(), g.__globals__['vmrun'] is vmrun)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout.split() == ["shared", "True"]
