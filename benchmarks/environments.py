"""Environments of the systems that are compared: each its own, made by uv, found again by what it is made from."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLACE = Path(__file__).resolve().parent / ".peers"
#: Seconds that one installation may take.
LIMIT = 900
NUMPY, CLOUDPICKLE = "numpy==2.4.6", "cloudpickle==3.1.3"
#: What each environment has; versions are pinned so that figures of two days compare.
REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "stdlib": (NUMPY,),
    "joblib": ("joblib==1.6.0", NUMPY),
    "dask": ("dask==2026.8.0", "distributed==2026.8.0", CLOUDPICKLE, NUMPY),
    "ray": ("ray==2.60.0", NUMPY),
    "lithops": ("lithops==3.8.0", CLOUDPICKLE, NUMPY),
    "vmrun": (NUMPY,),
}


class NotInstalled(Exception):
    """A system cannot be installed here; the message says why."""


def requirements(name: str) -> tuple[str, ...]:
    """What environment `name` is made from; vmrun's has the dependencies of this very checkout."""
    if name != "vmrun":
        return REQUIREMENTS[name]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return (*project["dependencies"], *REQUIREMENTS[name])


def folder_of(name: str, wanted: Sequence[str]) -> Path:
    """Where the environment is: its name tells interpreter and requirements."""
    text = json.dumps([sys.version, sys.prefix if name == "vmrun" else "", sorted(wanted)])
    return PLACE / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def python_of(name: str) -> Path:
    """The interpreter of environment `name`, installed at first use. Raises NotInstalled."""
    wanted = requirements(name)
    folder = folder_of(name, wanted)
    python, stamp = folder / "bin" / "python", folder / ".complete"
    if stamp.exists() and python.exists():
        return python
    print(f"installing {name}: {', '.join(wanted)}", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
    try:
        _run([_uv(), "pip", "install", "--quiet", "--python", str(python), *wanted])
    except NotInstalled as first:
        # pip knows configured mirrors that uv does not read.
        print(f"uv could not install {name}; trying with pip", file=sys.stderr, flush=True)
        try:
            _run([sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", *wanted])
        except NotInstalled as second:
            shutil.rmtree(folder, ignore_errors=True)
            raise NotInstalled(f"{second}") from first
    stamp.touch()
    return python


def _uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else "uv"


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalled(str(error)) from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"{command[0]} ended with {done.returncode}"]
        raise NotInstalled(lines[-1])
