"""vmrun and cloudpickle as plain files, apart from whatever else is installed beside them.

The agent's artefact carries them; a job's interpreter on this machine gets them as a directory.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path

import cloudpickle

from vmrun.bundle.pack import Item, pack, unpack

#: The package that this file is part of.
PACKAGE = Path(__file__).resolve().parent.parent


def app_items(package: Path = PACKAGE) -> list[Item]:
    """Every file of vmrun (sources at `package`) and of cloudpickle, under `vmrun/` and `cloudpickle/`; sorted."""
    pickler = Path(cloudpickle.__file__).resolve().parent
    return [*_tree(pickler, "cloudpickle"), *_tree(package, "vmrun")]


def _tree(directory: Path, name: str) -> list[Item]:
    return [
        Item(f"{name}/{relative.as_posix()}", path.read_bytes())
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not _is_left_out(relative := path.relative_to(directory))
    ]


def _is_left_out(relative: Path) -> bool:
    if relative.parts[:2] == ("catalog", "data"):
        return True  # only clients choose machines
    return any(part.startswith(".") or part in ("__pycache__", "tests") for part in relative.parts)


def content_key(items: Iterable[Item], *further: str) -> str:
    """A hash of paths and contents, and of what else the caller's result depends on."""
    digest = hashlib.sha256()
    for text in further:
        digest.update(f"{len(text)}:{text}".encode())
    for item in items:
        digest.update(f"{item.path}\0{item.executable}\0{len(item.data)}\0".encode())
        digest.update(item.data)
    return digest.hexdigest()


def app_directory(cache: Path, package: Path = PACKAGE) -> Path:
    """A directory that holds vmrun and cloudpickle only, for a job's interpreter; made once per content.

    The files are read once per process, whose own code does not change either.
    """
    directory = cache / "app" / _name(package)
    if not directory.is_dir():
        # Made of the files as they are by now, and named for what it is made of.
        _name.cache_clear()
        directory = cache / "app" / _name(package)
        unpack(pack(app_items(package)).data, directory)
    return directory


@functools.cache
def _name(package: Path) -> str:
    return content_key(app_items(package))[:32]
