"""Turns what a job wants installed into exact versions with hashes, on the client.

A lock is kept in the cache under what was asked for, so that the same job gets the same environment until the cache
is cleared or a fresh lock is asked for.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vmrun.core.codec import sha256
from vmrun.core.errors import UsageError

from .requirements import EnvironmentSpec
from .target import Target, this_machine
from .uv import Progress, UvRun, explain, run_uv, uv_environment

#: Seconds for resolving; a source distribution may have to be built to learn what it needs.
TIMEOUT = 600.0
#: Part of every cache key: locks written in another way must not be found.
_FORMAT = "1"


@dataclass(frozen=True, slots=True)
class Locker:
    """What locking works with on this machine."""

    #: Path of the uv program.
    uv: str
    #: Path of the interpreter that builds source distributions.
    python: str
    #: The cache directory.
    cache: Path
    progress: Progress
    #: Environment variables to pass the way to the packages on from.
    variables: Mapping[str, str]
    timeout: float = TIMEOUT


def lock_environment(spec: EnvironmentSpec, target: Target, locker: Locker, *, refresh: bool = False) -> str:
    """The lock of `spec` for `target`: a requirements file with exact versions and hashes.

    Raises UsageError when the requirements cannot be met (or there is no such package), VmrunError when no package
    index could be asked.
    """
    if target.python != spec.python:
        raise UsageError(f"an environment for Python {spec.python} cannot be locked for Python {target.python}")
    head = "".join(f"{option}\n" for option in spec.options)
    if spec.locked:
        return head + "".join(f"{line}\n" for line in spec.requirements)
    kept = locker.cache / "locks" / f"{sha256(f'{_FORMAT} {spec.id} {target.platform}'.encode())[:32]}.txt"
    if not refresh:
        try:
            return kept.read_text("utf-8")
        except FileNotFoundError:
            pass
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".locking.") as work:
        text = head + _compile(spec, target, locker, Path(work))
        new = Path(work) / "kept.txt"
        new.write_text(text, "utf-8")
        os.replace(new, kept)
    return text


def _compile(spec: EnvironmentSpec, target: Target, locker: Locker, work: Path) -> str:
    wanted, lock = work / "requirements.in", work / "requirements.txt"
    wanted.write_text("".join(f"{line}\n" for line in (*spec.options, *spec.requirements)), "utf-8")
    arguments = ["pip", "compile", wanted.name, "--output-file", lock.name, "--generate-hashes"]
    arguments += ["--no-config", "--no-header", "--no-annotate", "--python", locker.python, "--no-python-downloads"]
    if target != this_machine():
        arguments += ["--python-version", target.python, "--python-platform", target.platform]
    run = UvRun(
        program=locker.uv,
        env=uv_environment(locker.variables),
        cwd=str(work),
        timeout=locker.timeout,
        progress=lambda _line: None,
    )
    locker.progress(f"choosing versions of {', '.join(spec.requirements)}"[:200])
    # uv shows the lock it writes as well: only its complaints are worth passing on.
    result = run_uv(run, [*arguments, "--quiet"])
    if result.exit_code != 0:
        raise explain(result, "choosing package versions")
    return lock.read_text("utf-8")
