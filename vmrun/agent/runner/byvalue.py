"""Code of the job travels by value: whoever opens a result need not have the job's modules.

A class that is pickled by value gets an identity from cloudpickle, by default a random one per process. Here it is
derived from the job and the class's name, so that an object from one worker is an instance of the same class in
another, as a reduce expects.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

#: What is installed is not the job's, even where it is installed inside the job's directory.
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_NEVER = frozenset({"vmrun", "cloudpickle"})
_NESTING_MAX = 5


class ByValue:
    """Marks the modules below `code_path`, and the job's own file, as they get imported."""

    def __init__(self, code_path: str, job: str, module: str) -> None:
        self._root = os.path.realpath(code_path) + os.sep if code_path else ""
        self._job = job
        self._own = module
        self._seen: set[str] = set()
        #: Number of loaded modules when they were looked through last.
        self.count = 0

    def scan(self) -> None:
        """Look at the modules that were loaded since the last time."""
        names = set(sys.modules)
        self.count = len(names)
        for name in names - self._seen:
            module = sys.modules.get(name)
            # Anything may stand there, and what it says of itself may raise anything.
            with contextlib.suppress(Exception):
                if isinstance(module, ModuleType) and self._belongs(name, module):
                    self._mark(module)
        self._seen = names

    def again(self, module: str) -> None:
        """Have `module` looked at again: it was replaced."""
        self._seen.discard(module)
        self.count = -1

    def _belongs(self, name: str, module: ModuleType) -> bool:
        if name == self._own:
            return True
        if not self._root or name.partition(".")[0] in _NEVER:
            return False
        return any(self._is_inside(path) for path in _places(module))

    def _is_inside(self, path: str) -> bool:
        real = os.path.realpath(path)
        if not real.startswith(self._root) or any(mark in real for mark in _INSTALLED):
            return False
        prefix = os.path.realpath(sys.prefix) + os.sep
        return not (prefix.startswith(self._root) and real.startswith(prefix))

    def _mark(self, module: ModuleType) -> None:
        import cloudpickle

        cloudpickle.register_pickle_by_value(module)
        for kind in _classes(vars(module), module.__name__, _NESTING_MAX):
            self._name(cloudpickle.cloudpickle, kind)

    def _name(self, internals: Any, kind: type) -> None:
        """Give a class its identity, unless it came with one. Does nothing on a cloudpickle that works otherwise."""
        by_class = getattr(internals, "_DYNAMIC_CLASS_TRACKER_BY_CLASS", None)
        by_id = getattr(internals, "_DYNAMIC_CLASS_TRACKER_BY_ID", None)
        if by_class is None or by_id is None or kind in by_class:
            return
        text = f"{self._job}\n{kind.__module__}\n{kind.__qualname__}"
        identity = hashlib.sha256(text.encode()).hexdigest()[:32]
        by_class[kind] = identity
        by_id[identity] = kind


def _places(module: ModuleType) -> Iterator[str]:
    # Not by getattr, which makes lazy modules load what nobody asked for.
    names = vars(module)
    if isinstance(names.get("__file__"), str):
        yield names["__file__"]
        return
    for path in names.get("__path__") or ():
        yield os.path.join(str(path), "")


def _classes(names: dict[str, Any], module: str, depth: int) -> Iterator[type]:
    for value in list(names.values()):
        if isinstance(value, type) and getattr(value, "__module__", None) == module:
            yield value
            if depth:
                yield from _classes(dict(vars(value)), module, depth - 1)
