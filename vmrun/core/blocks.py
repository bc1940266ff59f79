"""Blocks: contiguous tasks, or their outcomes, as one run of bytes that no one needs to unpickle to pass on.

A block is a header, columns of one number per task, and payloads (see `columns`). Each payload is one task's pickle;
agent and runner cut and join them blindly, and only a worker, or the client, opens one. The header names the Python
``major.minor`` that pickled, in clear: unpickling code of another minor version can crash the process, so it is
compared before anything is opened. Numbers need no pickle: as arguments and as results they travel in a column.

Imported by the runner too, therefore standard library only.
"""

from __future__ import annotations

import json
import pickle
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from itertools import repeat
from typing import Any

from . import columns as layout
from .columns import Bytes, Column, check_lengths, column, column_view, cut, is_zero, pack, raw, unpack, zeros

BlockError = layout.BlockError
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_TASKS, _RESULTS = b"VMT1", b"VMR1"
_NONE = pickle.dumps(None, 5)
_EMPTY = memoryview(b"")


class Status(IntEnum):
    """How a task ended. The names are the `kind` that users see."""

    ok = 0
    raised = 1
    exited = 2
    signalled = 3
    timeout = 4
    oom = 5
    unpicklable = 6
    cancelled = 7
    lost = 8


class Form(IntEnum):
    """What a result is made of: a pickle (or None, if that is empty), a number in the column of values, or a parcel.

    A parcel (see `parcels`) is a pickle with its large buffers beside it.
    """

    pickled = 0
    integer = 1
    real = 2
    boolean = 3
    parcel = 4


_FORMS = bytes(Form)
#: By code: a lookup is much faster than a call of the class, and there is one for each task.
_STATUSES = tuple(Status)


@dataclass(slots=True)
class TaskBlock:
    """Arguments of tasks `first` … `first + count - 1`."""

    first: int
    #: Bytes of each task's payload.
    lengths: array[int]
    #: All payloads, one after the other.
    payload: Bytes
    #: `one`: the payload is the single argument; `call`: it is `(args, kwargs)`; `parcel` and `parcel-call`: likewise,
    #: but a parcel (see `parcels`) and not a pickle.
    call: str = "one"
    python: str = PYTHON
    #: The arguments themselves, if all of them are integers of 64 bits; there are no lengths and no payload then.
    numbers: Column | None = None

    @property
    def count(self) -> int:
        """Number of tasks."""
        return len(self.lengths) if self.numbers is None else len(self.numbers)

    def encode(self) -> bytes:
        """The block as bytes."""
        return b"".join((*self.start(), self.payload))

    def start(self) -> tuple[Bytes, Bytes]:
        """All but the payload, which may be large: what belongs one after the other. Views of this block's columns."""
        head = {"first": self.first, "count": self.count, "call": self.call, "python": self.python}
        if self.numbers is None:
            return pack(_TASKS, head), raw(self.lengths)
        return pack(_TASKS, {**head, "numbers": True}), raw(self.numbers)

    @classmethod
    def decode(cls, data: Bytes) -> TaskBlock:
        """The block in `data`; payloads and numbers stay views into it. Raises BlockError."""
        head, view = unpack(_TASKS, data, "call")
        numbers: Column | None = None
        if head.get("numbers") is True:
            numbers, view = column_view("q", head["count"], view)
            lengths: array[int] = array("Q")
        else:
            lengths, view = column("Q", head["count"], view)
        check_lengths(lengths, view)
        return cls(head["first"], lengths, view, head["call"], head["python"], numbers)

    def items(self) -> Iterator[tuple[int, Bytes]]:
        """(task number, payload), in order; numbers are pickled for it."""
        if self.numbers is None:
            return cut(self.first, self.lengths, self.payload)
        return ((task, pickle.dumps(number, 5)) for task, number in enumerate(self.numbers, self.first))

    def size(self, low: int, count: int) -> int:
        """Bytes of the payloads of `count` tasks, from the one at `low` in this block on."""
        return sum(self.lengths[low : low + count])

    def slice(self, first: int, count: int) -> TaskBlock:
        """The block of `count` tasks from task number `first` on, sharing these bytes."""
        low = first - self.first
        if low < 0 or count < 0 or low + count > self.count:
            raise BlockError(f"tasks {first}+{count} are not in {self.first}+{self.count}")
        return self.part(low, count, self.size(0, low))

    def part(self, low: int, count: int, offset: int) -> TaskBlock:
        """The block of `count` tasks from the one at `low` on, whose payloads begin at `offset`; it shares the bytes.

        Nothing is checked: this is for whoever walks through a block and knows where it is.
        """
        lengths = self.lengths[low : low + count]
        payload = memoryview(self.payload)[offset : offset + sum(lengths)]
        numbers = None if self.numbers is None else self.numbers[low : low + count]
        return TaskBlock(self.first + low, lengths, payload, self.call, self.python, numbers)


@dataclass(slots=True)
class ResultBlock:
    """Outcomes of tasks `first` … `first + count - 1`.

    The payload of an `ok` task is its result, pickled or as a parcel, or empty if it is None or a number (see `Form`);
    of any other, a JSON text (see `failure`). Columns that a block does not have are empty and stand for zeros.
    """

    first: int
    status: bytes | bytearray
    lengths: array[int]
    payload: Bytes
    #: Seconds since the epoch, on the VM's clock, when each task started; empty if there is `ended`.
    started: array[float]
    #: Wall seconds that each task ran: from `started` until its function returned; empty if there is `ended`.
    seconds: array[float]
    python: str = PYTHON
    #: What all tasks of the block share: worker, attempt.
    facts: dict[str, Any] = field(default_factory=dict)
    #: A `Form` for each task.
    forms: bytes = b""
    #: 64 bits for each task: an integer, or the bits of a float.
    values: Column = field(default_factory=lambda: array("q"))
    #: CPU seconds of each task and the children that it waited for; 0 where that was not measured for it alone.
    cpu: array[float] = field(default_factory=lambda: array("f"))
    #: The most resident memory that its process had during each task, in KiB; 0 as above.
    peak: array[int] = field(default_factory=lambda: array("I"))
    #: Of `seconds`, those in which the argument was unpickled; 0 as above.
    load: array[float] = field(default_factory=lambda: array("f"))
    #: Seconds, after `seconds`, in which the result was pickled; 0 as above.
    keep: array[float] = field(default_factory=lambda: array("f"))
    #: Instead of `started` and `seconds`, for tasks that followed on each other at once: when each of them ended, and
    #: when the first of them began, in seconds to which `epoch` must be added.
    ended: Column = field(default_factory=lambda: array("d"))
    began: float = 0.0
    epoch: float = 0.0

    @property
    def count(self) -> int:
        """Number of tasks."""
        return len(self.lengths)

    def encode(self) -> bytes:
        """The block as bytes; columns of zeros are left out."""
        return b"".join(self.parts())

    def parts(self) -> list[Bytes]:
        """What `encode` joins."""
        columns = {name: raw(getattr(self, name)) for name in _COLUMNS}
        columns["forms"] = self.forms
        if is_zero(self.forms):
            del columns["values"]
        kept = {name: data for name, data in columns.items() if not is_zero(data)}
        head = {
            "first": self.first,
            "count": self.count,
            "python": self.python,
            "facts": self.facts,
            "columns": list(kept),
        }
        times = (raw(self.started), raw(self.seconds))
        if self.ended:
            head["began"] = [self.began, self.epoch]
            times = (raw(self.ended), b"")
        return [pack(_RESULTS, head), *times, bytes(self.status), *kept.values(), self.payload]

    @classmethod
    def decode(cls, data: Bytes, *, head_only: bool = False) -> ResultBlock:
        """The block in `data`; payloads, `values` and `ended` stay views into it. Raises BlockError.

        With `head_only` it is what stands before the payloads that matters; they may be cut off, and are left out.
        """
        head, view = unpack(_RESULTS, data)
        count = head["count"]
        times, view = _times(head, view)
        status, view = bytes(view[:count]), view[count:]
        # Most blocks hold nothing but successes; then this takes no look at each.
        if len(status) != count or (not is_zero(status) and max(status) > Status.lost):
            raise BlockError("a block's statuses are damaged")
        columns, view = _columns(head, view)
        if "lengths" in columns:
            lengths = columns.pop("lengths")
            if head_only:
                view = view[:0]
            else:
                check_lengths(lengths, view)
        else:
            # Not made before it is known that there are so many tasks: a header may say anything.
            lengths = zeros("Q", count)
            check_lengths(array("Q"), view)
        facts = head.get("facts", {})
        if not isinstance(facts, dict):
            raise BlockError("a block's facts are not an object")
        return cls(head["first"], status, lengths, view, python=head["python"], facts=facts, **times, **columns)

    def items(self) -> Iterator[tuple[int, Status, Bytes]]:
        """(task number, status, payload), in order; None and numbers are pickled for it."""
        for (number, payload), code in zip(cut(self.first, self.lengths, self.payload), self.status, strict=True):
            if payload or code:
                yield number, _STATUSES[code], payload
            else:
                yield number, Status.ok, self._pickled(number)

    def form(self, task: int) -> int:
        """The `Form` of the result of task number `task`."""
        return self.forms[task - self.first] if self.forms else Form.pickled

    def _pickled(self, task: int) -> bytes:
        at, form = task - self.first, self.form(task)
        return _NONE if form in (Form.pickled, Form.parcel) else pickle.dumps(self._number(at, form), 5)

    def _number(self, at: int, form: int) -> int | float | bool:
        if form == Form.real:
            return memoryview(self.values[at : at + 1]).cast("B").cast("d")[0]
        return bool(self.values[at]) if form == Form.boolean else self.values[at]

    def timed(self) -> ResultBlock:
        """The block with `started` and `seconds` for each task."""
        if not self.ended:
            return self
        began = array("d", [self.began])
        began.extend(self.ended[:-1])
        seconds = array("f", map(float.__sub__, self.ended, began))
        started = array("d", map(self.epoch.__add__, began))
        return replace(self, started=started, seconds=seconds, ended=array("d"))

    def plain(self) -> Iterable[Any] | None:
        """The results in order, if all tasks ended `ok` and no result is a pickle; else None.

        So the many small results of a long job are had without a look at each.
        """
        if self.payload or not is_zero(self.status):
            return None
        if not self.forms:
            return repeat(None, self.count)
        form = self.forms[0]
        if self.forms.count(form) != self.count or form == Form.parcel:
            return None
        if form == Form.integer:
            return self.values.tolist()
        if form == Form.real:
            return memoryview(self.values).cast("B").cast("d").tolist()
        return map(bool, self.values) if form == Form.boolean else repeat(None, self.count)

    def slice(self, first: int, count: int) -> ResultBlock:
        """The outcomes of `count` tasks from task number `first` on, sharing these bytes."""
        low, high = first - self.first, first - self.first + count
        if low < 0 or count < 0 or high > self.count:
            raise BlockError(f"tasks {first}+{count} are not in {self.first}+{self.count}")
        if count == self.count:
            return self
        start = sum(self.lengths[:low])
        payload = memoryview(self.payload)[start : start + sum(self.lengths[low:high])]
        names = ("status", "started", "seconds", "ended", *_COLUMNS, "forms")
        parts = {name: getattr(self, name)[low:high] for name in names}
        began = self.ended[low - 1] if low and self.ended else self.began
        return replace(self, first=first, payload=payload, began=began, **parts)

    def failed(self) -> list[int]:
        """Numbers of the tasks that did not end `ok`."""
        if is_zero(self.status):
            return []
        return [self.first + at for at, code in enumerate(self.status) if code]


#: Columns that a block may lack, in their order, with the type of their numbers.
_COLUMNS = {"lengths": "Q", "values": "q", "cpu": "f", "peak": "I", "load": "f", "keep": "f"}


def _times(head: dict[str, Any], view: memoryview) -> tuple[dict[str, Any], memoryview]:
    """When the tasks ran, in one way or the other, and what follows that. Raises BlockError."""
    began = head.get("began")
    if began is None:
        started, view = column("d", head["count"], view)
        seconds, view = column("f", head["count"], view)
        return {"started": started, "seconds": seconds}, view
    if not (isinstance(began, list) and len(began) == 2 and all(isinstance(part, float) for part in began)):
        raise BlockError(f"a block's beginning is {began!r:.80}")
    ended, view = column_view("d", head["count"], view)
    return {"started": array("d"), "seconds": array("f"), "ended": ended, "began": began[0], "epoch": began[1]}, view


def _columns(head: dict[str, Any], view: memoryview) -> tuple[dict[str, Any], memoryview]:
    """The columns that the header lists, and what follows them. Raises BlockError."""
    names, count = head.get("columns"), head["count"]
    known = [*_COLUMNS, "forms"]
    if not isinstance(names, list) or names != [name for name in known if name in names]:
        raise BlockError("a block's columns are damaged")
    found: dict[str, Any] = {}
    for name in names:
        if name == "forms":
            found[name], view = bytes(view[:count]), view[count:]
        elif name == "values":
            # The others are searched and counted, which views cannot be before Python 3.14.
            found[name], view = column_view(_COLUMNS[name], count, view)
        else:
            found[name], view = column(_COLUMNS[name], count, view)
    forms = found.get("forms", b"")
    if forms:
        values = found.setdefault("values", zeros("q", len(forms)))
        if len(forms) != count or forms.translate(None, _FORMS) or len(values) != count:
            raise BlockError("a block's forms are damaged")
    elif "values" in found:
        raise BlockError("a block has values without forms")
    return found, view


def failure(
    kind: Status,
    message: str,
    *,
    type_name: str = "",
    traceback: str = "",
    exception: str = "",
    code: int | None = None,
) -> bytes:
    """The payload of a failed task: JSON, so that reading it never runs code.

    `exception` is the base64 of the pickled exception, `code` the exit code or signal number.
    """
    document = {"kind": kind.name, "type": type_name, "message": message, "traceback": traceback}
    if exception:
        document["exception"] = exception
    if code is not None:
        return json.dumps({**document, "code": code}).encode()
    return json.dumps(document).encode()


def read_failure(payload: Bytes) -> dict[str, Any]:
    """The document that `failure` made. Raises BlockError."""
    try:
        document = json.loads(bytes(payload))
    except (ValueError, RecursionError) as error:
        raise BlockError("a failed task's payload is not JSON") from error
    if not isinstance(document, dict):
        raise BlockError("a failed task's payload is not an object")
    return document


def lengths_of(payloads: Sequence[Bytes]) -> array[int]:
    """The lengths column of `payloads`."""
    return array("Q", map(len, payloads))
