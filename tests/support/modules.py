"""Which modules a program has loaded when it is over."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.source import ROOT


def loaded_by(program: str, cwd: Path) -> set[str]:
    """Names of the modules that `program`, a Python text, has loaded in a process of its own."""
    code = f"import sys\n{program}\nprint('LOADED', *sorted(sys.modules))"
    command = [sys.executable, "-c", code]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, cwd=cwd, env=environ)
    return set(done.stdout.rpartition("LOADED")[2].split())
