"""What becomes of a task's value or exception: a row in the shared memory, or a file for a large result."""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
from array import array
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

from vmrun.core.blocks import Form, ResultBlock, Status
from vmrun.core.parcels import PAGE, collector, lead

from . import failures
from .byvalue import ByValue
from .functions import Ended
from .guard import FULL
from .shared import BASE, PAYLOAD_FLUSH, PAYLOAD_LARGE, Shared

#: In place of a status: the result went into a file.
LARGE = -1
#: Bytes before the payload in the file of a large result: header and columns, padded.
ROOM = 1024
#: Bytes moved at once in such a file.
_MOVED = 4 * 1024 * 1024


class _Spilled(NamedTuple):
    """The payload of a large result in its file."""

    path: str
    #: Where it begins, and its bytes.
    begin: int
    size: int
    form: Form


class Keeper:
    """Keeps outcomes. Where user code has run, `leave` is called first: in a child that it forked, it never returns.

    `unrest[0]` is set when there is enough to be sent.
    """

    def __init__(
        self,
        shared: Shared,
        by_value: ByValue,
        spool: str,
        unrest: list[int],
        leave: Callable[[BaseException | None], None],
    ) -> None:
        import cloudpickle

        self._shared = shared
        self._by_value = by_value
        self._spool = spool
        self._unrest = unrest
        self._leave = leave
        self._dumps: Callable[[Any], bytes] = cloudpickle.dumps
        self._make_pickler: Any = cloudpickle.Pickler
        self._pickler: Any = cloudpickle.Pickler(shared.memory, protocol=5)
        # Past cloudpickle's own `dump`, which only rewords an error, at twice the time for a small result. The class is
        # named because without it Python 3.12 and later crash.
        self._dump: Callable[[Any], None] = pickle.Pickler.dump.__get__(self._pickler, self._make_pickler)
        self._spilled = _Spilled("", 0, 0, Form.pickled)
        #: The last task failed for lack of space on disk.
        self.starved = False

    @property
    def used(self) -> int:
        """Bytes of the payload area that are taken."""
        return self._shared.memory.tell() - self._shared.origin

    def keep(self, row: int, value: Any) -> int:
        """Keep a result as that of `row`; the status, or LARGE when it is in a file, for `large`."""
        shared, kind = self._shared, type(value)
        if value is None:
            return 0
        if kind is int:
            try:
                shared.values[row] = value
            except ValueError:  # more than 64 bits
                return self._pickle(row, value)
            shared.forms[row] = Form.integer
            return 0
        if kind is float:
            shared.reals[row], shared.forms[row] = value, Form.real
            return 0
        if kind is bool:
            shared.values[row], shared.forms[row] = value, Form.boolean
            return 0
        return self._pickle(row, value)

    def _pickle(self, row: int, value: Any) -> int:
        if len(sys.modules) != self._by_value.count:
            self._by_value.scan()
        memory = self._shared.memory
        start = memory.tell()
        try:
            self._dump(value)
        except BaseException as error:  # noqa: BLE001  the value's own code runs in here
            memory.seek(start)
            return self._keep_otherwise(row, value, error)
        finally:
            self._pickler.clear_memo()
            if self._pickler.globals_ref:
                self._pickler.globals_ref.clear()
        end = memory.tell()
        if end - start > PAYLOAD_LARGE:
            memory.seek(start)
            return self._keep_otherwise(row, value, ValueError())
        self._shared.lengths[row] = end - start
        if end - self._shared.origin > PAYLOAD_FLUSH:
            self._unrest[0] = self._unrest[0] or FULL
        return 0

    def _keep_otherwise(self, row: int, value: Any, error: BaseException) -> int:
        """Into a file, if all that is wrong is the size (the memory answers that with a ValueError)."""
        self._leave(error)
        unwritten = False
        if isinstance(error, ValueError):
            try:
                self._spill(self._shared.words[BASE] + row, value)
                return LARGE
            except BaseException as second:  # noqa: BLE001  as above
                error, unwritten = second, isinstance(second, OSError)
        self.starved = failures.no_space(error)
        if self.starved or unwritten:
            return self._write(row, Status.raised, failures.unkept(error))
        return self._write(row, Status.unpicklable, failures.unpicklable(value, error, self._dumps))

    def failed(self, row: int, error: BaseException) -> int:
        """Keep a failure as the outcome of `row`; the status."""
        self._leave(error)
        if isinstance(error, Ended):
            return self._write(row, error.status, error.payload)
        self.starved = failures.no_space(error)
        return self._write(row, *failures.describe(error, self._dumps))

    def _write(self, row: int, status: Status, document: bytes) -> int:
        self._shared.memory.write(document)
        self._shared.lengths[row] = len(document)
        return status

    def _spill(self, task: int, value: Any) -> None:
        """Pickle a result into a file, behind room for the columns of its block; as a parcel if it has large buffers.

        The buffers are written from where they are.
        """
        path = os.path.join(self._spool, f"{task}-{os.getpid()}.result")
        buffers: list[memoryview] = []
        try:
            with open(path, "w+b", buffering=1024 * 1024) as file:
                # A page more: where a parcel's header belongs, unless it is long.
                begin, form = ROOM + PAGE, Form.pickled
                file.write(bytes(begin))
                self._make_pickler(file, protocol=5, buffer_callback=collector(buffers)).dump(value)
                size = file.tell() - begin
                if buffers:
                    _lead(file, size, buffers)
                    begin, size, form = ROOM, file.tell() - ROOM, Form.parcel
            self._spilled = _Spilled(path, begin, size, form)
        except BaseException:
            # It may be that it could not even be made.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            raise
        finally:
            # As long as they are looked at here, nobody can resize them.
            for view in buffers:
                view.release()

    def large(self, row: int, facts: dict[str, Any]) -> tuple[str, int]:
        """Complete the file of the large result of `row`, whose other columns are filled; its path and its size."""
        path, begin, size, form = self._spilled
        shared = self._shared

        def alone(column: memoryview[Any], code: str) -> array[Any]:
            return array(code, [column[row]])

        block = ResultBlock(
            shared.words[BASE] + row,
            b"\0",
            array("Q", [size]),
            b"",
            alone(shared.started, "d"),
            alone(shared.seconds, "f"),
            facts=dict(facts),
            forms=bytes([form]),
            cpu=alone(shared.cpu, "f"),
            peak=alone(shared.peak, "I"),
            load=alone(shared.load, "f"),
            keep=alone(shared.keep, "f"),
        )
        start = block.encode()
        block.facts["pad"] = "." * (begin - len(start) - len(',"pad":""'))
        with open(path, "r+b") as file:
            file.write(block.encode())
        return path, begin + size


def _lead(file: BinaryIO, size: int, buffers: list[memoryview]) -> None:
    """Make a parcel of the pickle of `size` bytes that a file ends with, behind ROOM and a page, and of its buffers."""
    head, *rest = lead(size, buffers)
    if len(head) > PAGE:
        _move(file, ROOM + PAGE, size, len(head) - PAGE)
    file.seek(ROOM)
    file.write(head)
    file.seek(size, os.SEEK_CUR)
    file.writelines(rest)


def _move(file: BinaryIO, begin: int, size: int, distance: int) -> None:
    """Move `size` bytes of a file from `begin` on towards its end, in bounded memory."""
    end = begin + size
    while end > begin:
        low = max(begin, end - _MOVED)
        file.seek(low)
        piece = file.read(end - low)
        file.seek(low + distance)
        file.write(piece)
        end = low
