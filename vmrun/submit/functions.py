"""Functions whose pickles are in the store: each goes there once, for as long as it means the same."""

from __future__ import annotations

import operator
import threading
import types
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cloudpickle

from vmrun.core.model import FunctionSpec, Payload

#: Functions that are remembered.
FUNCTIONS_MAX = 256


@dataclass(slots=True)
class _Known:
    fn: Callable[..., Any]
    #: What its pickle holds beyond its code; kept, so that identity means something.
    uses: tuple[object, ...]
    spec: FunctionSpec

    def still(self, uses: tuple[object, ...] | None) -> bool:
        """Whether the function means what it meant when it was pickled."""
        return uses is not None and len(uses) == len(self.uses) and all(map(operator.is_, uses, self.uses))


class StoredFunctions:
    """Pickles functions with `put`, which writes bytes to the store. For any thread."""

    def __init__(self, put: Callable[[bytes], Payload]) -> None:
        self._put = put
        #: By identity; the latest last.
        self._known: OrderedDict[int, _Known] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Functions that are remembered."""
        return len(self._known)

    def spec(self, fn: Callable[..., Any]) -> FunctionSpec:
        """What a job's journal says of a function, which is in the store then. What pickling raises comes through."""
        uses = _uses(fn)
        with self._lock:
            known = self._known.get(id(fn))
        if known is not None and known.fn is fn and known.still(uses):
            return known.spec
        spec = FunctionSpec("pickle", payload=self._put(cloudpickle.dumps(fn, protocol=5)))
        if uses is None:
            return spec
        with self._lock:
            self._known[id(fn)] = _Known(fn, uses, spec)
            while len(self._known) > FUNCTIONS_MAX:
                self._known.popitem(last=False)
        return spec


def _uses(fn: Callable[..., Any]) -> tuple[object, ...] | None:
    """The objects that a function's pickle holds besides its code; None if they cannot be told: it may change unseen.

    A name that is bound anew is noticed, as when a cell of a notebook runs again; a change inside an object is not.
    """
    if isinstance(fn, types.BuiltinFunctionType):
        return ()
    if not isinstance(fn, types.FunctionType):
        return None
    cells = tuple(_content(cell) for cell in fn.__closure__ or ())
    names = tuple(fn.__globals__.get(name) for name in fn.__code__.co_names)
    return (fn.__code__, fn.__defaults__, fn.__kwdefaults__, *cells, *names)


def _content(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return None
