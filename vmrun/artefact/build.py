"""Builds the agent's artefact for one version of Python and one processor: the same inputs give the same bytes.

A gzipped tar of `main.py`, `target.json`, `app/` (vmrun and cloudpickle, as they are here) and `lib/` (the few
compiled packages that the agent needs, in the very versions that are installed here). Parts and results are kept in
the cache under a hash of what they were made from.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import vmrun
from vmrun.bundle.pack import Item, pack
from vmrun.core.blocks import PYTHON
from vmrun.core.codec import canonical, sha256
from vmrun.core.errors import VmrunError
from vmrun.environment.target import Target
from vmrun.environment.uv import Progress, UvRun, explain, find_uv, run_uv, uv_environment

from .app import PACKAGE, app_items, content_key

#: What the agent imports beside the standard library and `app/`: storage and signatures, and what these need.
LIBRARIES = ("cffi", "cryptography", "obstore", "typing_extensions")
#: Seconds for fetching wheels.
TIMEOUT = 600.0
#: Part of every cache key: what was built in another way must not be found.
_FORMAT = "1"
_DROPPED_DIRECTORIES = frozenset({"__pycache__", "tests", "test", "bin", "sboms"})
_DROPPED_SUFFIXES = (".pyi", ".pyc", ".h", ".typed")
#: What is kept of a package's metadata: its name and version, and under which terms it may be passed on.
_KEPT_METADATA = ("METADATA", "licenses/")


@dataclass(frozen=True, slots=True)
class Artefact:
    """A file that is pushed to a VM."""

    path: Path
    sha256: str
    #: Bytes.
    size: int


def build_artefact(target: Target, cache: Path, progress: Progress, *, package: Path = PACKAGE) -> Artefact:
    """The agent for `target`, built unless `cache` has it; `package` is the source of vmrun.

    Raises VmrunError when wheels are needed that cannot be fetched.
    """
    facts = {"version": vmrun.__version__, "python": target.python, "arch": target.arch}
    own = [
        Item("main.py", (package / "artefact" / "main.py").read_bytes()),
        Item("target.json", canonical(facts)),
        *(Item(f"app/{item.path}", item.data) for item in app_items(package)),
    ]
    pins = _pins(LIBRARIES)
    kept = cache / "artefacts" / f"agent-{content_key(own, _FORMAT, target.platform, *pins)}.tar.gz"
    if not kept.is_file():
        libraries = _fetched(pins, target, cache, progress)
        progress(f"building the agent for Python {target.python} on {target.arch}")
        _keep(pack([*own, *_library_items(libraries)]).data, kept)
    return _artefact(kept)


def build_uv(target: Target, cache: Path, progress: Progress) -> Artefact:
    """The program uv for `target`, in the version that is installed here: a gzipped tar of the one file `uv`."""
    target = dataclasses.replace(target, python=PYTHON)  # it is the same for all of them
    pins = _pins(("uv",))
    kept = cache / "artefacts" / f"uv-{_key(pins, target)}.tar.gz"
    if not kept.is_file():
        program = _fetched(pins, target, cache, progress) / "bin" / "uv"
        progress(f"packing uv for {target.arch}")
        _keep(pack([Item("uv", program.read_bytes(), executable=True)]).data, kept)
    return _artefact(kept)


def _artefact(path: Path) -> Artefact:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Artefact(path, digest, file.tell())


def _keep(data: bytes, path: Path) -> None:
    """Write a file of the cache, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".keeping.")
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


# --- compiled packages ---


def _pins(names: tuple[str, ...]) -> list[str]:
    """The versions installed here."""
    try:
        return [f"{name}=={importlib.metadata.version(name)}" for name in names]
    except importlib.metadata.PackageNotFoundError as error:
        raise VmrunError(f"{error.name} is not installed beside vmrun", hint="install vmrun anew with pip") from error


def _key(pins: list[str], target: Target) -> str:
    return sha256(canonical([_FORMAT, pins, target.python, target.platform]))


def _fetched(pins: list[str], target: Target, cache: Path, progress: Progress) -> Path:
    """A directory with these packages' wheels unpacked, fetched by uv unless `cache` has it."""
    directory = cache / "artefacts" / f"lib-{_key(pins, target)[:32]}"
    if directory.is_dir():
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=directory.parent, prefix=".fetching."))
    try:
        _fetch(pins, target, building, progress)
        try:
            building.rename(directory)
        except OSError:
            # Somebody else fetched the same meanwhile.
            if not directory.is_dir():
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return directory


def _fetch(pins: list[str], target: Target, directory: Path, progress: Progress) -> None:
    progress(f"fetching {', '.join(pins)} for Python {target.python} on {target.arch}")
    run = UvRun(find_uv(), _environment(os.environ), str(directory), TIMEOUT, progress)
    arguments = ["pip", "install", "--no-config", "--no-deps", "--only-binary", ":all:", "--target", str(directory)]
    arguments += ["--python", sys.executable, "--no-python-downloads"]
    # Also when this machine is such a target: its own C library may be newer than that of the VM.
    arguments += ["--python-version", target.python, "--python-platform", target.platform]
    result = run_uv(run, [*arguments, *pins])
    if result.exit_code != 0:
        raise explain(result, "fetching the agent's packages")


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    # Files are copied: linked ones would change in uv's own cache when something writes to them here.
    return {**uv_environment(variables), "UV_LINK_MODE": "copy"}


def _library_items(directory: Path) -> list[Item]:
    """What the agent needs of the unpacked wheels, under `lib/`."""
    items = []
    for path in sorted(directory.rglob("*")):
        relative = PurePosixPath(path.relative_to(directory).as_posix())
        if path.is_file() and _is_needed(relative):
            items.append(Item(f"lib/{relative}", path.read_bytes()))
    return items


def _is_needed(path: PurePosixPath) -> bool:
    top, rest = path.parts[0], "/".join(path.parts[1:])
    if top.endswith(".dist-info"):
        return rest.startswith(_KEPT_METADATA)
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and _DROPPED_DIRECTORIES.isdisjoint(path.parts[:-1]) and not path.name.endswith(_DROPPED_SUFFIXES)
