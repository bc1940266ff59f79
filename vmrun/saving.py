"""`vmrun.checkpoint(state)` and `vmrun.restored()`: a long task saves where it is, its next attempt goes on from there.

Loaded in tasks, under the job's interpreter, therefore light: standard library and core only, and cloudpickle when
there is something to save. Programs in any language can do the same: the state is the file `$VMRUN_TASK` in the
directory `$VMRUN_CHECKPOINTS`, and whoever replaces it by a rename has saved it.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

from .core.blocks import PYTHON, BlockError
from .core.errors import UsageError
from .core.parcels import Parcel, collector, lead
from .core.units import format_size

#: Names the directory of the running tasks' states.
DIRECTORY = "VMRUN_CHECKPOINTS"
_TASK = "VMRUN_TASK"
#: Bytes of one state at most: it must get to the store within the notice of a machine that is taken back.
STATE_MAX = 1024**3


def checkpoint(state: Any) -> None:
    """Save `state`, any object that can be pickled, in place of what this task saved before.

    The next attempt at the task, on this machine or on another one, gets it from `restored`. Returns when it is on the
    machine's disk; the agent carries the latest one to the store every second at first, every half minute at most, and
    once more when the machine is taken back. Outside of a task nothing is saved. Raises UsageError for a state of more
    than 1 GiB, and what pickling raises.
    """
    path = _path()
    if not path:
        return
    import cloudpickle

    buffers: list[memoryview] = []
    data = cloudpickle.dumps(state, protocol=5, buffer_callback=collector(buffers))
    first, *rest = lead(len(data), buffers)
    pieces = [first, data, *rest]
    size = sum(memoryview(piece).nbytes for piece in pieces)
    if size > STATE_MAX:
        raise UsageError(
            f"vmrun.checkpoint(): the state has {format_size(size)}, more than {format_size(STATE_MAX)}",
            hint="save what cannot be computed again, and no more",
        )
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.writelines(pieces)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def restored(default: Any = None) -> Any:
    """What an earlier attempt at this task, or this one, saved last; `default` if there is nothing.

    Raises UsageError for a file that `checkpoint` did not write, and what unpickling raises.
    """
    path = _path()
    try:
        with open(path, "rb") as file:
            data = bytearray(file.read())
    except FileNotFoundError:
        return default
    try:
        parcel = Parcel.decode(data)
    except BlockError as error:
        raise UsageError(
            f"vmrun.restored(): {path} was not written by vmrun.checkpoint()", hint="read it as what wrote it"
        ) from error
    if parcel.python != PYTHON:
        raise UsageError(f"the state was saved by Python {parcel.python}, and this is Python {PYTHON}")
    return parcel.load()


def _path() -> str:
    directory, task = os.environ.get(DIRECTORY, ""), os.environ.get(_TASK, "")
    return os.path.join(directory, task) if directory and task else ""
