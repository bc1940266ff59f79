"""`import vmrun`: each public name is what it says, whatever was used before it."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

import vmrun


@pytest.mark.timeout(600)
def test_a_public_name_is_the_same_after_any_other() -> None:
    """Some names are also those of modules, which the import system puts in the same place.

    For each name the package is imported afresh; what it needs of others stays, which is most of the time it takes.
    """
    program = textwrap.dedent("""
        import importlib, sys, types
        for name in sys.argv[1:]:
            for module in [each for each in sys.modules if each.partition(".")[0] == "vmrun"]:
                del sys.modules[module]
            vmrun = importlib.import_module("vmrun")
            assert "vmrun.core" not in sys.modules, "the package is only the door"
            getattr(vmrun, name)
            wrong = [other for other in vmrun.__all__ if isinstance(getattr(vmrun, other), types.ModuleType)]
            print(f"{name}: {wrong}")
    """)
    names = sorted(vmrun.__all__)
    argv = [sys.executable, "-c", program, *names]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{name}: []" for name in names]


def test_a_function_of_main_may_name_the_package() -> None:
    """Such functions are pickled by value, with the modules that they name, and plain pickle has no way with ours."""
    program = (
        "import pickle, cloudpickle, vmrun\n"
        "def f(): return vmrun.shared.__name__\n"
        "g = pickle.loads(cloudpickle.dumps(f))\n"
        "print(g(), g.__globals__['vmrun'] is vmrun)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["shared", "True"]
