"""Finds the local files that a script needs: the modules next to it that it imports, and what `include` names.

Imports are read from the source, never run, and followed through local modules, absolute and relative. Local means
resolvable from the script's own directory, where `python job.py` looks first; what is installed is the business of
the job's environment. A regular package travels whole, data files and all, because code may open anything of it. What
is imported by a name that only exists at run time is not seen: the script lists it in `include`.
"""

from __future__ import annotations

import ast
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vmrun.core.errors import ConfigError, UsageError
from vmrun.core.units import format_size

from .pack import Item
from .script import SCRIPT_MAX_BYTES, Script

#: Code travels whole with every new version of it; what is larger is data, and has other ways.
BUNDLE_MAX_BYTES = 100 * 1000 * 1000
BUNDLE_MAX_FILES = 20_000
_SKIPPED = frozenset({"__pycache__", "node_modules"})
_EXTENSION_MODULES = (".so", ".pyd")

Parts = tuple[str, ...]


@dataclass(frozen=True, slots=True, order=True)
class BundleFile:
    """A file of the job's code."""

    #: Relative to the script's directory, with `/`.
    path: str
    source: Path


def local_files(
    script: Script, *, max_bytes: int = BUNDLE_MAX_BYTES, max_files: int = BUNDLE_MAX_FILES
) -> list[BundleFile]:
    """The script, the local modules that it imports, directly or not, and what it includes; sorted by path.

    Raises UsageError when they exceed the limits, ConfigError for an `include` that leaves the directory or
    matches nothing.
    """
    walk = _Walk(script.path.absolute().parent, max_bytes, max_files)
    walk.add_file(script.path.name)
    walk.follow(script.tree, ())
    walk.drain()
    for pattern in script.header.include:
        _include(walk, pattern, script.path)
    walk.drain()
    return sorted(BundleFile(path, source) for path, source in walk.found.items())


class _Walk:
    """Collects files from one directory, each once, within the limits."""

    def __init__(self, root: Path, max_bytes: int, max_files: int) -> None:
        self.root = root
        self.found: dict[str, Path] = {}
        self._max_bytes, self._max_files = max_bytes, max_files
        self._size = 0
        self._largest = (0, "")
        self._resolved: set[Parts] = set()
        #: Modules whose imports are still to be read: path, and the package that they are in.
        self._unread: list[tuple[str, Parts]] = []

    def add_file(self, path: str) -> bool:
        """Take the file at `path`; False if it was taken before."""
        if path in self.found:
            return False
        source = self.root / path
        try:
            path.encode()
            size = source.stat().st_size
        except UnicodeEncodeError as error:
            raise UsageError(f"{path!r}: the file's name is not UTF-8", hint="rename it") from error
        except OSError as error:
            raise UsageError(f"{source}: {error.strerror or error}", hint="the job's code needs this file") from error
        self.found[path] = source
        self._size += size
        self._largest = max(self._largest, (size, path))
        if self._size > self._max_bytes or len(self.found) > self._max_files:
            raise UsageError(
                f"the job's code is more than {format_size(self._max_bytes)} or {self._max_files} files; "
                f"the largest file is {self._largest[1]} ({format_size(self._largest[0])})",
                hint="keep data out of imported packages and of `include`: let the tasks read it where it lies",
            )
        return True

    def add_module(self, path: str, package: Parts) -> None:
        """Take a module's file, and read its imports later."""
        if self.add_file(path) and path.endswith(".py"):
            self._unread.append((path, package))

    def add_tree(self, directory: str) -> None:
        """Take all files below `directory` but caches and hidden ones."""
        for path in _files_below(self.root, directory):
            self.add_module(path, PurePosixPath(path).parent.parts)

    def drain(self) -> None:
        """Read modules until no new one turns up. One that cannot be parsed says so itself when it is imported."""
        while self._unread:
            path, package = self._unread.pop()
            tree = _parse_quietly(self.found[path])
            if tree is not None:
                self.follow(tree, package)

    def follow(self, tree: ast.Module, package: Parts) -> None:
        """Take what a module in `package` imports."""
        for parts in _imports(tree, package):
            self._resolve(parts)

    def _resolve(self, parts: Parts) -> None:
        """Take the files that importing `parts` would load, as far as they are local."""
        if parts in self._resolved:
            return
        self._resolved.add(parts)
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            if (self.root / path / "__init__.py").is_file():
                self.add_tree(path)
                return
            extensions = _extension_modules(self.root, path)
            if extensions or (self.root / f"{path}.py").is_file():
                for found in extensions or [f"{path}.py"]:
                    self.add_module(found, parts[: depth - 1])
                return
            if not (self.root / path).is_dir():
                return


def _files_below(root: Path, directory: str) -> Iterator[str]:
    """Paths relative to `root`, symbolic links followed, each real directory once."""
    seen: set[str] = set()
    for where, directories, names in os.walk(root / directory, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:
            directories.clear()
            continue
        seen.add(real)
        directories[:] = sorted(name for name in directories if not _is_skipped(name))
        relative = Path(where).relative_to(root)
        for name in sorted(names):
            if not _is_skipped(name) and (root / relative / name).is_file():
                yield (relative / name).as_posix()


def _is_skipped(name: str) -> bool:
    return name.startswith(".") or name in _SKIPPED or name.endswith((".pyc", ".pyo"))


def _extension_modules(root: Path, path: str) -> list[str]:
    """Compiled modules of this name: `name.so`, `name.abi3.so`, `name.cpython-311-x86_64-linux-gnu.so`."""
    parent, name = (root / path).parent, path.rpartition("/")[2]
    if not name.isidentifier() or not parent.is_dir():
        return []
    found = (entry for entry in parent.glob(f"{name}.*") if entry.suffix in _EXTENSION_MODULES and entry.is_file())
    return sorted(entry.relative_to(root).as_posix() for entry in found)


def _parse_quietly(path: Path) -> ast.Module | None:
    try:
        if path.stat().st_size > SCRIPT_MAX_BYTES:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(path.read_bytes(), str(path))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _imports(tree: ast.Module, package: Parts) -> Iterator[Parts]:
    """Every dotted name that the module may import, absolute. `from a import b` may mean the module `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield tuple(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, package)
            if base is not None:
                yield from (base, *((*base, alias.name) for alias in node.names if alias.name != "*"))
        elif isinstance(node, ast.Call):
            yield from _import_call(node)


def _base(node: ast.ImportFrom, package: Parts) -> Parts | None:
    """What `from` names; None where a relative import leaves its package."""
    named = tuple(node.module.split(".")) if node.module else ()
    if not node.level:
        return named
    if node.level > len(package):
        return None
    return (*package[: len(package) - node.level + 1], *named)


def _import_call(node: ast.Call) -> Iterator[Parts]:
    """`importlib.import_module("a.b")` and `__import__("a.b")`, where the name stands in the source."""
    function = node.func
    called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if called in ("import_module", "__import__") and node.args:
        name = node.args[0]
        if isinstance(name, ast.Constant) and isinstance(name.value, str) and not name.value.startswith("."):
            yield tuple(name.value.split("."))


def read_files(files: Iterable[BundleFile]) -> Iterator[Item]:
    """The files' contents. Raises UsageError for one that cannot be read."""
    for file in files:
        try:
            with file.source.open("rb") as opened:
                executable = bool(os.fstat(opened.fileno()).st_mode & 0o100)
                yield Item(file.path, opened.read(), executable)
        except OSError as error:
            raise UsageError(
                f"{file.source}: {error.strerror or error}", hint="the job's code needs this file"
            ) from error


# --- include ---


def _include(walk: _Walk, pattern: str, script: Path) -> None:
    where = f"{script}: tool.vmrun.include"
    pure = PurePosixPath(pattern)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts:
        raise ConfigError(
            f"{where}: {pattern!r} leaves the script's directory",
            hint="patterns are relative to the script, such as data/*.csv or settings/**",
        )
    matched = list(_matches(walk.root, pattern))
    if not matched:
        raise ConfigError(f"{where}: {pattern!r} matches no file", hint=f"relative to {walk.root}")
    for path in matched:
        walk.add_module(path, PurePosixPath(path).parent.parts)


def _matches(root: Path, pattern: str) -> Iterable[str]:
    """Files that match, and all files below directories that match; hidden ones only where the pattern names them."""
    hidden_named = any(part.startswith(".") for part in PurePosixPath(pattern).parts)
    found: set[str] = set()
    for entry in root.glob(pattern):
        relative = entry.relative_to(root)
        if any(_is_skipped(part) for part in relative.parts) and not hidden_named:
            continue
        if entry.is_dir():
            if relative.parts:
                found.update(_files_below(root, relative.as_posix()))
        elif entry.is_file():
            found.add(relative.as_posix())
    return sorted(found)
