"""Reading and writing outcomes: from blocks to objects in the store and back, every byte checked by its hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from . import codec, keys, parcels
from .blocks import BlockError, Form, ResultBlock, Status
from .errors import Corrupt, KeyNotFound
from .folds import Extent, ShardFold
from .parcels import Parcel
from .pieces import PieceReader
from .ranges import Range
from .records import BlockRef
from .storage import BlobStore

#: Outcomes up to this many bytes travel inside the entry; more go to a segment object of their own.
INLINE_MAX = 128 * 1024
#: Bytes of payloads from which on a block's head is signed for by itself, so that it can be read without them.
HEAD_FROM = 64 * 1024
#: Bytes of a head of one task at most.
_HEAD_MAX = 8 * 1024
#: Bytes of the payload of one task from which on it is read in pieces.
ALONE_FROM = 1024 * 1024


def as_ranges(numbers: Sequence[int]) -> tuple[Range, ...]:
    """Ascending numbers as half-open ranges."""
    ranges: list[Range] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number:
            ranges[-1] = (ranges[-1][0], number + 1)
        else:
            ranges.append((number, number + 1))
    return tuple(ranges)


@dataclass(frozen=True, slots=True)
class Packed:
    """Encoded blocks laid end to end, and a reference to each."""

    data: bytes
    refs: tuple[BlockRef, ...]
    #: SHA-256 of `data` if it must become a segment; "" if it is small enough for the entry.
    segment: str


def pack(blocks: Sequence[ResultBlock]) -> Packed:
    """Lay out the blocks of one commit."""
    encoded = [block.encode() for block in blocks]
    data = b"".join(encoded)
    segment = codec.sha256(data) if len(data) > INLINE_MAX else ""
    refs, offset = [], 0
    for block, piece in zip(blocks, encoded, strict=True):
        failed = as_ranges(block.failed())
        ref = BlockRef(block.first, block.count, offset, len(piece), codec.sha256(piece), segment, failed)
        refs.append(with_head(ref, piece, len(piece) - len(block.payload)))
        offset += len(piece)
    return Packed(data, tuple(refs), segment)


def with_head(ref: BlockRef, data: bytes, size: int) -> BlockRef:
    """`ref` with what lets the first `size` bytes of the block, which begins with `data`, be read alone; if it pays."""
    if ref.size - size < HEAD_FROM:
        return ref
    return replace(ref, head=size, head_sha256=codec.sha256(data[:size]))


def large_ref(task: int, start: bytes, size: int, digest: str) -> BlockRef:
    """The reference to a segment of `size` bytes that is the block of one task, and begins with `start`."""
    ref = BlockRef(task, 1, 0, size, digest, digest)
    try:
        payload = sum(ResultBlock.decode(start[:_HEAD_MAX], head_only=True).lengths)
    except BlockError:
        return ref  # made by the job's own process: whoever reads it is told
    return with_head(ref, start, size - payload) if 0 < size - payload <= len(start) else ref


@dataclass(frozen=True, slots=True)
class Outcome:
    """One task's settled outcome; the payload is a pickle for `ok`, a failure document otherwise.

    In place of a pickle there may be a `parcel`; the payload is empty then.
    """

    task: int
    status: Status
    payload: bytes | bytearray | memoryview
    #: Python `major.minor` that pickled.
    python: str
    started: float
    seconds: float
    parcel: Parcel | None = None


def of_block(block: ResultBlock) -> Iterator[Outcome]:
    """The outcomes in a block, in order. Raises Corrupt for a result that is not what the block says it is."""
    timed = block.timed()
    for at, (task, status, payload) in enumerate(timed.items()):
        outcome = Outcome(task, status, payload, timed.python, timed.started[at], timed.seconds[at])
        if timed.forms and timed.forms[at] == Form.parcel and not status:
            try:
                outcome = replace(outcome, payload=b"", parcel=parcels.apart(payload))
            except BlockError as error:
                raise Corrupt(f"the result of task {task}: {error}") from error
        yield outcome


def alone(ref: BlockRef) -> bool:
    """Whether a block is the large result of one task, which is to be read in pieces."""
    return bool(ref.segment) and ref.count == 1 and not ref.failed and 0 < ref.head < ref.size - ALONE_FROM


class OutcomeReader:
    """Reads the settled outcomes of a shard."""

    def __init__(self, store: BlobStore, job: str, prefix: str) -> None:
        self._store = store
        self._job = job
        self._prefix = prefix
        self._inline: tuple[int, bytes] = (-1, b"")

    def remember(self, entry: int, attachment: bytes) -> None:
        """Keep the attachment of the entry just read, so that its outcomes need no further request."""
        self._inline = (entry, attachment)

    def outcomes(self, extent: Extent) -> Iterator[Outcome]:
        """The outcomes that `extent` settled, in order. Raises Corrupt when stored bytes are not what was signed.

        A large result is read in pieces, and what of it is a parcel's buffer is in memory only once.
        """
        return iter([self._alone(extent)]) if alone(extent.block) else of_block(self.settled(extent))

    def _alone(self, extent: Extent) -> Outcome:
        ref = extent.block
        source = PieceReader(self.pieces(extent))
        start = source.read(ref.head)
        if codec.sha256(start) != ref.head_sha256:
            raise self._forged(ref)
        try:
            block = ResultBlock.decode(start, head_only=True).timed()
            if (block.first, block.count) != (ref.first, 1):
                raise BlockError("it holds other tasks")
            parcel, payload = None, b""
            if block.forms and block.forms[0] == Form.parcel:
                parcel = Parcel.read(source, ref.size - ref.head)
            else:
                payload = source.read(ref.size - ref.head)
        except BlockError as error:
            source.skip()  # that what was read is not what was signed is the better reason, if so it is
            raise Corrupt(f"task {ref.first} of job {self._job}: {error}") from error
        # To the very end: only there it is known that all of it is what was signed.
        source.skip()
        status = Status(block.status[0])
        return Outcome(ref.first, status, payload, block.python, block.started[0], block.seconds[0], parcel)

    def pieces(self, extent: Extent) -> Iterator[bytes]:
        """The bytes of the block that holds `extent`, which is in a segment; Corrupt at the end if they are others."""
        ref = extent.block
        digest, size = hashlib.sha256(), 0
        try:
            for piece in self._store.read(keys.segment(self._job, ref.segment), ref.offset, ref.offset + ref.size):
                digest.update(piece)
                size += len(piece)
                yield piece
        except KeyNotFound as error:
            raise self._missing(ref) from error
        if size != ref.size or digest.hexdigest() != ref.sha256:
            raise self._forged(ref)

    def settled(self, extent: Extent) -> ResultBlock:
        """The outcomes that `extent` settled, and no others. Raises Corrupt as `outcomes` does."""
        return self.results(extent).slice(extent.first, extent.end - extent.first)

    def results(self, extent: Extent) -> ResultBlock:
        """The block that holds `extent`. Raises Corrupt when stored bytes are not what was signed."""
        try:
            block = ResultBlock.decode(self.block(extent))
        except BlockError as error:
            raise Corrupt(f"tasks {extent.first}-{extent.end - 1} of job {self._job}: {error}") from error
        if block.first != extent.block.first or block.count != extent.block.count:
            raise Corrupt(f"the block of tasks {extent.first}-{extent.end - 1} holds other tasks")
        return block

    def block(self, extent: Extent) -> bytes:
        """The bytes of the block that holds `extent`, checked by their hash."""
        ref = extent.block
        data = self._segment(ref) if ref.segment else self._attachment(extent.entry)[ref.offset : ref.offset + ref.size]
        if len(data) != ref.size or codec.sha256(data) != ref.sha256:
            raise self._forged(ref)
        return data

    def _forged(self, ref: BlockRef) -> Corrupt:
        return Corrupt(
            f"the stored results of tasks {ref.first}-{ref.first + ref.count - 1} of job {self._job} are not the "
            "ones that were signed; nothing of them was used",
            hint="an object in the store was changed or damaged; run the job again",
        )

    def _missing(self, ref: BlockRef) -> Corrupt:
        key = keys.segment(self._job, ref.segment)
        return Corrupt(f"{key} is missing", hint="somebody deleted it; run the job again")

    def _segment(self, ref: BlockRef) -> bytes:
        try:
            return self._store.get(keys.segment(self._job, ref.segment), ref.offset, ref.offset + ref.size)
        except KeyNotFound as error:
            raise self._missing(ref) from error

    def _attachment(self, entry: int) -> bytes:
        if self._inline[0] != entry:
            key = keys.entry(self._prefix, entry)
            try:
                data = self._store.get(key)
                # Signature and place were checked when the journal was folded; the caller checks the block's hash.
                second = data.index(b"\n", data.index(b"\n") + 1)
            except (KeyNotFound, ValueError) as error:
                raise Corrupt(f"{key} was deleted or damaged after it was read", hint="run the job again") from error
            self._inline = (entry, data[second + 1 :])
        return self._inline[1]


def in_order(fold: ShardFold) -> list[Extent]:
    """The settled extents by task number."""
    return sorted(fold.extents, key=lambda extent: extent.first)
