"""`vmrun.shared()`: in a task, the data that its job shares among all workers of a VM.

Loaded in tasks, under the job's interpreter, therefore light: standard library and core only.
"""

from __future__ import annotations

import mmap
import os
import threading
from typing import Any

from .core.blocks import PYTHON
from .core.errors import UsageError
from .core.parcels import Parcel

#: Names the file that a job shares, and is for users; names the parcel of an object, and is vmrun's own.
FILE, OBJECT = "VMRUN_SHARED", "VMRUN_SHARED_OBJECT"
#: Linux's MAP_NORESERVE, which not every Python names: a thousand workers may map a parcel as large as memory.
_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)
#: The object, once it is loaded. A list, because it may be anything.
_held: list[Any] = []
#: Never let go of: closing one would close its descriptor, whose number may long belong to something else.
_mappings: list[mmap.mmap] = []
_lock = threading.Lock()


def shared() -> Any:
    """What was given as `shared=`; with `--shared FILE`, the file's path on this machine, as a `pathlib.Path`.

    The object is one per worker process, however often this is called. Its arrays lie in memory that all workers
    of the VM share until one writes to them; what is written stays in that worker. Raises UsageError where the job
    shares nothing.
    """
    if _held:
        return _held[0]
    if path := os.environ.get(OBJECT):
        with _lock:
            if not _held:
                parcel = open_parcel(path)
                if parcel.python != PYTHON:
                    raise UsageError(
                        f"the shared data was pickled by Python {parcel.python}, and this is Python {PYTHON}",
                        hint=f"submit with --python {parcel.python}, or from Python {PYTHON}",
                    )
                hold(parcel.load())
        return _held[0]
    if path := os.environ.get(FILE):
        from pathlib import Path

        return Path(path)
    raise UsageError(
        "vmrun.shared(): this job shares no data",
        hint="give it some: vmrun.submit(fn, over, shared=...), @vmrun.job(shared=...) or `vmrun submit --shared FILE`",
    )


def open_parcel(path: str) -> Parcel:
    """The parcel in a file, mapped so that all processes share its pages, and whoever writes gets a page of its own."""
    with open(path, "rb") as file:
        mapping = mmap.mmap(
            file.fileno(), 0, flags=mmap.MAP_PRIVATE | _NORESERVE, prot=mmap.PROT_READ | mmap.PROT_WRITE
        )
    _mappings.append(mapping)
    return Parcel.decode(mapping)  # type: ignore[arg-type]  # it gives a buffer, whatever the stubs say


def hold(value: Any) -> None:
    """Make `value` what `shared` gives in this process and in those that are forked from it."""
    _held[:] = [value]
