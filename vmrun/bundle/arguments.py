"""Writes the arguments of tasks into blocks: any iterable, a million items, in bounded memory.

Every argument is pickled on its own, so that one can be cut out without opening its neighbours. cloudpickle's pickler
is the C one with a hook for functions and classes: those of `__main__` exist nowhere else and travel by value, as do
lambdas and what was defined in a function; all others by name.

Also imported under the job's interpreter, therefore standard library and cloudpickle only.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import pickle
import types
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import cloudpickle

from vmrun.core.blocks import TaskBlock
from vmrun.core.codec import canonical
from vmrun.core.columns import Bytes
from vmrun.core.errors import UsageError
from vmrun.core.parcels import PARCELS, collector, lead
from vmrun.core.units import format_size

#: A block is closed when its payload reaches this, or it holds this many tasks: the least that is ever fetched.
BLOCK_BYTES = 256 * 1024
BLOCK_TASKS = 65_536
#: So many integers in a row, at the beginning, travel as numbers, which need no pickle; fewer only if they are all.
BLOCK_NUMBERS = 1024
_INTEGER = 1 << 63
#: More tasks than anybody means; an endless iterable gets here.
TASKS_MAX = 100_000_000
#: Bytes of one pickled argument.
ARGUMENT_MAX_BYTES = 8 * 1024**3
#: How far the search for the part that cannot be pickled goes.
_SEARCH_DEPTH, _SEARCH_WIDTH, _SEARCH_TRIES = 8, 1000, 10_000


@dataclass(frozen=True, slots=True)
class PackedArguments:
    """The arguments of all tasks in one file of blocks, and where each block lies."""

    path: Path
    sha256: str
    #: Bytes.
    size: int
    #: Canonical JSON: `[[first, count, offset, size, sha256], …]`, one row per block.
    index: bytes
    index_sha256: str
    #: Number of tasks.
    count: int
    #: `one` or `call`, as in TaskBlock.
    call: str


def pack_arguments(
    items: Iterable[object], directory: Path, *, call: str = "one", tasks_max: int = TASKS_MAX
) -> PackedArguments:
    """Write `items`, one per task, to a new file in `directory`, which the caller owns and removes.

    With call="one" an item is the task's single argument, with "call" it is `(args, kwargs)`. Raises UsageError
    for an item that cannot be pickled (its number, its type, the part of it that is to blame) and for too many or
    too large ones; what `items` itself raises comes through. No file is left behind then.
    """
    path = directory / "arguments.blocks"
    try:
        with path.open("xb") as file:
            writer = _BlockWriter(file, call)
            count = (
                _write_all(items, writer, tasks_max) if call == "one" else _write_pickled(items, writer, 0, tasks_max)
            )
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    index = canonical(writer.index)
    digest = hashlib.sha256(index).hexdigest()
    return PackedArguments(path, writer.sha256, writer.offset, index, digest, count, call)


def _write_all(items: Iterable[object], writer: _BlockWriter, tasks_max: int) -> int:
    count, rest = _write_integers(items, writer, tasks_max)
    return count if rest is None else _write_pickled(rest, writer, count, tasks_max)


def _write_integers(
    items: Iterable[object], writer: _BlockWriter, tasks_max: int
) -> tuple[int, Iterable[object] | None]:
    """Write the integers that `items` begins with; how many, and the items that follow them, if there are any."""
    count, numbers = 0, array("q")
    remaining = iter(items)
    for item in remaining:
        if type(item) is not int or not -_INTEGER <= item < _INTEGER:
            # A few do not make a block of their own.
            if len(numbers) < BLOCK_NUMBERS:
                return count - len(numbers), itertools.chain(numbers, [item], remaining)
            writer.write_numbers(count - len(numbers), numbers)
            return count, itertools.chain([item], remaining)
        numbers.append(item)
        count += 1
        if len(numbers) == BLOCK_TASKS:
            writer.write_numbers(count - BLOCK_TASKS, numbers)
            del numbers[:]
            _check_count(count, tasks_max)
    writer.write_numbers(count - len(numbers), numbers)
    return count, None


def _write_pickled(items: Iterable[object], writer: _BlockWriter, first: int, tasks_max: int) -> int:
    buffer = io.BytesIO()
    pickler = ArgumentPickler(buffer, apart=True)
    apart = pickler.apart
    lengths: array[int] = array("Q")
    count, start = first, 0
    # Looked up once: this loop runs a million times.
    dump, clear, tell, add = pickler.dump_one, pickler.clear_memo, buffer.tell, lengths.append
    for item in items:
        try:
            dump(item)
        except Exception as error:  # the item's own __reduce__ may raise anything
            raise unpicklable(item, f"argument {count}", error) from error
        clear()
        end = tell()
        if apart or end - start > BLOCK_BYTES:
            # Too large to share a block: what came before it goes out first.
            writer.write(count - len(lengths), lengths, buffer.getbuffer()[:start])
            _write_large(count, writer, buffer.getbuffer()[start:end], apart)
            count += 1
        else:
            add(end - start)
            count += 1
            start = end
            if start < BLOCK_BYTES and len(lengths) < BLOCK_TASKS:
                continue
            writer.write(count - len(lengths), lengths, buffer.getbuffer()[:start])
        _check_count(count, tasks_max)
        del lengths[:]
        pickler.rewind()
        start = 0
    writer.write(count - len(lengths), lengths, buffer.getbuffer()[:start])
    return count


def _check_count(count: int, tasks_max: int) -> None:
    if count > tasks_max:
        raise UsageError(f"more than {tasks_max} inputs", hint="is the iterable endless? Give each task a range")


def _write_large(number: int, writer: _BlockWriter, pickled: memoryview, apart: list[memoryview]) -> None:
    """Write the block of one argument; its buffers that are `apart` are written from where they are, and forgotten."""
    with pickled:
        parts: list[bytes | memoryview] = [pickled]
        if apart:
            parts = lead(len(pickled), apart)
            parts.insert(1, pickled)
        size = sum(len(part) for part in parts)
        _check_size(size, number)
        writer.write_parts(number, array("Q", [size]), parts, PARCELS[writer.call] if apart else writer.call)
        del parts
        apart.clear()


def _check_size(size: int, number: int) -> None:
    if size > ARGUMENT_MAX_BYTES:
        raise UsageError(
            f"argument {number} is {format_size(size)} when pickled",
            hint=f"at most {format_size(ARGUMENT_MAX_BYTES)}: let the task read it from a file or an object store",
        )


class ArgumentPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles one object after the other into `buffer`, each readable without the others.

    With `apart`, large buffers are not written but collected in `apart`, from where the caller takes them.
    """

    def __init__(self, buffer: io.BytesIO, *, apart: bool = False) -> None:
        #: In the order in which they are to be given back to `pickle.loads`.
        self.apart: list[memoryview] = []
        super().__init__(buffer, protocol=5, buffer_callback=collector(self.apart) if apart else None)
        self._buffer = buffer

    def dump_one(self, item: object) -> None:
        """Append the pickle of `item`; whatever its parts raise comes through. `clear_memo` must follow."""
        # cloudpickle's own `dump` only rewords RecursionError, for a third of the speed.
        pickle.Pickler.dump(self, item)
        if self.globals_ref:
            # Functions of one pickle share their globals; ones of different pickles must not.
            self.globals_ref.clear()

    def rewind(self) -> None:
        """Forget everything written so far."""
        self._buffer.seek(0)
        self._buffer.truncate()


class _BlockWriter:
    """Appends blocks to a file, hashing as it goes."""

    def __init__(self, file: IO[bytes], call: str) -> None:
        self.index: list[tuple[int, int, int, int, str]] = []
        self.offset = 0
        self.call = call
        self._file = file
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, first: int, lengths: array[int], payload: memoryview) -> None:
        """Write the block of tasks from `first` on, if there are any; lets go of `payload`."""
        with payload:
            if not lengths:
                return
            self.write_parts(first, lengths, [payload], self.call)

    def write_parts(self, first: int, lengths: array[int], parts: Sequence[bytes | memoryview], call: str) -> None:
        """Write a block whose payload is `parts`, one after the other."""
        # The block without its payload, so that a large one is not copied just to be joined.
        self._write(first, len(lengths), [*TaskBlock(first, lengths, b"", call).start(), *parts])

    def write_numbers(self, first: int, numbers: array[int]) -> None:
        """Write the block of tasks from `first` on whose arguments are `numbers`, if there are any."""
        if numbers:
            block = TaskBlock(first, array("Q"), b"", self.call, numbers=numbers)
            self._write(first, len(numbers), block.start())

    def _write(self, first: int, count: int, parts: Sequence[Bytes]) -> None:
        block, size = hashlib.sha256(), 0
        for part in parts:
            block.update(part)
            self._digest.update(part)
            self._file.write(part)
            size += len(part)
        self.index.append((first, count, self.offset, size, block.hexdigest()))
        self.offset += size


# --- what cannot be pickled, and why ---


def unpicklable(item: object, what: str, error: BaseException) -> UsageError:
    """The error for `item`, called `what`, naming the part of it that cannot be pickled."""
    where, part, reason = _culprit(item, error)
    message = f"{what} ({_type_name(item)}) cannot be pickled"
    if where:
        message += f": {what}{where} is a {_type_name(part)}"
    return UsageError(
        f"{message}: {_said(reason)}",
        hint="pass what a task needs to make it (a path, a name, plain values) and make it in the task",
    )


def _said(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply, or contains itself without end"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def _type_name(value: object) -> str:
    kind = type(value)
    if kind.__module__ in ("builtins", "__main__", "__vmrun_job__"):
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def _culprit(item: object, error: BaseException) -> tuple[str, object, BaseException]:
    """The smallest part that fails on its own: where it is, what it is, and what it raises."""
    where, part, reason = "", item, error
    tries = 0
    for _ in range(_SEARCH_DEPTH):
        for step, inner in _parts(part):
            tries += 1
            if tries > _SEARCH_TRIES:
                return where, part, reason
            failure = _try(inner)
            if failure is not None:
                where, part, reason = where + step, inner, failure
                break
        else:
            break
    return where, part, reason


def _try(item: object) -> BaseException | None:
    try:
        ArgumentPickler(io.BytesIO()).dump_one(item)
    except Exception as error:  # noqa: BLE001 - as above: the user's own code runs in here
        return error
    return None


def _parts(item: object) -> Iterator[tuple[str, object]]:
    """What `item` is made of, with how one writes the way to it; at most so many."""
    for number, pair in enumerate(_all_parts(item)):
        if number >= _SEARCH_WIDTH:
            return
        yield pair


def _all_parts(item: object) -> Iterator[tuple[str, object]]:
    if isinstance(item, dict | list | tuple | set | frozenset):
        yield from _contained(item)
    elif isinstance(item, types.MethodType):
        yield ".__self__", item.__self__
    elif isinstance(item, types.FunctionType):
        yield from _captured(item)
    elif not isinstance(item, type | types.ModuleType):
        for name, value in getattr(item, "__dict__", {}).items():
            yield f".{name}", value


def _contained(
    item: dict[object, object] | list[object] | tuple[object, ...] | set[object] | frozenset[object],
) -> Iterator[tuple[str, object]]:
    if isinstance(item, dict):
        for key, value in item.items():
            yield f"[{key!r:.40}]", value
            yield f" key {key!r:.40}", key
    elif isinstance(item, list | tuple):
        for at, value in enumerate(item):
            yield f"[{at}]", value
    else:
        for value in item:
            yield f" element {value!r:.40}", value


def _captured(function: types.FunctionType) -> Iterator[tuple[str, object]]:
    """The variables that a function takes along."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield f" variable {name}", cell.cell_contents
        except ValueError:
            continue
    for name in function.__code__.co_names:
        if name in function.__globals__:
            yield f" global {name}", function.__globals__[name]
    for at, value in enumerate(function.__defaults__ or ()):
        yield f" default {at}", value
