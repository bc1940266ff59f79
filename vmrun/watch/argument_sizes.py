"""How many bytes each task's argument takes, read where the arguments lie, without keeping or opening them."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator

from vmrun.core import codec, keys
from vmrun.core.blocks import BlockError, TaskBlock
from vmrun.core.errors import Corrupt, KeyNotFound
from vmrun.core.ledger import Desk, JobLedger
from vmrun.core.model import Arguments, ShardPlan

#: Blocks whose sizes are remembered: outcomes come in about the order of the tasks.
REMEMBERED = 32
#: Bytes of a block with a single argument that is not fetched.
FETCHED_MAX = 64 * 1024
#: Bytes of a number, which needs no pickle.
_NUMBER = 8
#: Number of the first task, and the sizes from there on.
_Sizes = tuple[int, "array[int]"]


def _sizes_in(data: bytes) -> _Sizes:
    block = TaskBlock.decode(data)
    return block.first, block.lengths if block.numbers is None else array("Q", [_NUMBER]) * block.count


class ArgumentSizes:
    """Of one job. Arguments that are not there, or not what was submitted, have no size; that is no error here."""

    def __init__(self, desk: Desk, ledger: JobLedger) -> None:
        self._desk = desk
        self._ledger = ledger
        self._known: OrderedDict[int, _Sizes] = OrderedDict()
        arguments = ledger.fold.spec.arguments
        #: (first, count, offset, size, sha256), one for each block.
        self._index: list[tuple[int, int, int, int, str]] = [] if arguments is None else self._read_index(arguments)
        self._firsts = [row[0] for row in self._index]
        self._data = "" if arguments is None else keys.payload(arguments.data.sha256)

    def sizes(self, plan: ShardPlan, first: int, end: int) -> Iterator[int | None]:
        """Bytes of the arguments of tasks `first` … `end - 1`, which are in the shard `plan`."""
        start, sizes = 0, array("Q")
        for task in range(first, end):
            if not 0 <= task - start < len(sizes):
                start, sizes = self._block(plan, task)
            at = task - start
            yield sizes[at] if 0 <= at < len(sizes) else None

    def _block(self, plan: ShardPlan, task: int) -> _Sizes:
        """The sizes in the block that has `task`, and the number of its first task."""
        key = -1 - plan.entry if plan.entry >= 0 else bisect_right(self._firsts, task) - 1
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._sizes_of(plan, key)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return known

    def _sizes_of(self, plan: ShardPlan, key: int) -> _Sizes:
        nothing: _Sizes = (0, array("Q"))
        try:
            if plan.entry >= 0:
                return _sizes_in(self._ledger.attachment(plan.entry))
            if key < 0 or plan.reduce:
                return nothing
            first, count, offset, size, digest = self._index[key]
            if count == 1 and size > FETCHED_MAX:
                # Large ones have a block each; what stands before it takes a few bytes that need not be fetched.
                empty = TaskBlock(first, array("Q", [0]), b"", python=self._ledger.fold.spec.python)
                return first, array("Q", [size - sum(map(len, empty.start()))])
            data = self._desk.store.get(self._data, offset, offset + size)
            return _sizes_in(data) if codec.sha256(data) == digest else nothing
        except (BlockError, Corrupt, KeyNotFound):
            return nothing

    def _read_index(self, arguments: Arguments) -> list[tuple[int, int, int, int, str]]:
        try:
            data = self._desk.store.get(keys.payload(arguments.index.sha256))
            if codec.sha256(data) != arguments.index.sha256:
                return []
            return [(int(a), int(b), int(c), int(d), str(e)) for a, b, c, d, e in codec.parse(data)]
        except (Corrupt, KeyNotFound, TypeError, ValueError):
            return []
