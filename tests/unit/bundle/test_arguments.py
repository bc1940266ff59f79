"""Arguments in blocks: any iterable, in bounded memory, every item readable on its own and elsewhere."""

from __future__ import annotations

import functools
import hashlib
import json
import pickle
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmrun.bundle import arguments
from vmrun.bundle.arguments import BLOCK_BYTES, BLOCK_TASKS, PackedArguments, pack_arguments
from vmrun.core import parcels
from vmrun.core.blocks import PYTHON, TaskBlock
from vmrun.core.codec import canonical
from vmrun.core.errors import UsageError


def blocks(packed: PackedArguments) -> list[TaskBlock]:
    """The blocks, found by the index, each checked against it."""
    data = packed.path.read_bytes()
    assert len(data) == packed.size
    assert hashlib.sha256(data).hexdigest() == packed.sha256
    assert hashlib.sha256(packed.index).hexdigest() == packed.index_sha256
    found, next_task, next_offset = [], 0, 0
    for first, count, offset, size, digest in json.loads(packed.index):
        piece = data[offset : offset + size]
        assert (first, offset) == (next_task, next_offset)
        assert hashlib.sha256(piece).hexdigest() == digest
        block = TaskBlock.decode(piece)
        assert (block.first, block.count, block.python, block.call) == (first, count, PYTHON, packed.call)
        found.append(block)
        next_task, next_offset = first + count, offset + size
    assert (next_task, next_offset) == (packed.count, packed.size)
    return found


def values(packed: PackedArguments) -> list[object]:
    return [pickle.loads(payload) for block in blocks(packed) for _, payload in block.items()]


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.binary(max_size=50),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@given(st.lists(plain, max_size=30))
def test_items_come_back_in_order(tmp_path_factory: pytest.TempPathFactory, items: list[object]) -> None:
    packed = pack_arguments(iter(items), tmp_path_factory.mktemp("a"))
    assert values(packed) == items
    assert packed.index == canonical(json.loads(packed.index))


class Whole(int):
    """Not an integer like any other."""


@pytest.mark.parametrize(
    ("items", "numbers"),
    [
        (range(-5, 5), [True]),
        ([2**63 - 1, -(2**63)], [True]),
        (range(BLOCK_TASKS + 10), [True, True]),
        ([2**63], [False]),
        ([1, 2, 2**63], [False]),
        ([True, 1], [False]),
        ([1, Whole(2)], [False]),
        ([*range(10), "x"], [False]),
        ([*range(2000), "x", 5], [True, False]),
        ([*range(BLOCK_TASKS + 10), None], [True, False]),
    ],
    ids=lambda value: f"{len(value)}",
)
def test_integers_travel_without_a_pickle(tmp_path: Path, items: list[object], numbers: list[bool]) -> None:
    packed = pack_arguments(iter(items), tmp_path)

    assert [(type(value), value) for value in values(packed)] == [(type(item), item) for item in items]
    assert [block.numbers is not None for block in blocks(packed)] == numbers


def test_no_items_are_no_blocks(tmp_path: Path) -> None:
    packed = pack_arguments([], tmp_path)
    assert (packed.count, packed.size, packed.index) == (0, 0, b"[]")
    assert packed.path.read_bytes() == b""


def test_calls_are_marked_as_such(tmp_path: Path) -> None:
    packed = pack_arguments([((1,), {"a": 2})], tmp_path, call="call")
    assert [block.call for block in blocks(packed)] == ["call"]
    assert values(packed) == [((1,), {"a": 2})]


def test_the_same_items_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    first.mkdir()
    second.mkdir()
    one, two = (pack_arguments(range(50_000), directory) for directory in (first, second))
    assert (one.sha256, one.index) == (two.sha256, two.index)


def test_blocks_are_closed_by_bytes(tmp_path: Path) -> None:
    packed = pack_arguments((bytes([number % 256]) * 1000 for number in range(1000)), tmp_path)
    sizes = [len(block.payload) for block in blocks(packed)]
    assert len(sizes) == 4
    assert all(BLOCK_BYTES <= size < BLOCK_BYTES + 2000 for size in sizes[:-1])
    assert values(packed)[999] == b"\xe7" * 1000


def test_blocks_are_closed_by_tasks(tmp_path: Path) -> None:
    packed = pack_arguments((None for _ in range(BLOCK_TASKS + 1)), tmp_path)
    counts = [block.count for block in blocks(packed)]
    assert max(counts) <= BLOCK_TASKS
    assert sum(counts) == BLOCK_TASKS + 1


def test_a_large_item_has_a_block_of_its_own(tmp_path: Path) -> None:
    large = bytes(BLOCK_BYTES)
    packed = pack_arguments([1, 2, large, large, 3], tmp_path)
    assert [block.count for block in blocks(packed)] == [2, 1, 1, 1]
    assert values(packed) == [1, 2, large, large, 3]


def test_memory_does_not_grow_with_the_number_of_items(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        directory = tmp_path / str(count)
        directory.mkdir()
        tracemalloc.start()
        try:
            pack_arguments((bytes(5000) for _ in range(count)), directory)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(8000) < 1.5 * peak(1000)


def test_an_iterable_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def items() -> Iterator[int]:
        yield from range(100_000)
        raise LookupError("the user's own")

    with pytest.raises(LookupError, match="the user's own"):
        pack_arguments(items(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_endless_iterable_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="more than 1000 inputs") as caught:
        pack_arguments((bytes(10_000) for _ in iter(int, 1)), tmp_path, tasks_max=1000)
    assert "endless" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_an_item_beyond_all_measure_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "ARGUMENT_MAX_BYTES", 1_000_000)
    with pytest.raises(UsageError, match=r"argument 1 is 1 MB when pickled"):
        pack_arguments([0, bytes(1_000_001)], tmp_path)


def test_items_do_not_lean_on_each_other(tmp_path: Path) -> None:
    """A pickle that refers to an object of an earlier one could not be read alone."""
    shared = {"a": "long enough to be remembered", "b": [1]}
    packed = pack_arguments([shared, shared, [shared, shared]], tmp_path)
    read = values(packed)
    assert read == [shared, shared, [shared, shared]]
    assert read[2][0] is read[2][1]  # type: ignore[index]


# --- elsewhere ---

PROGRAM = """
import enum, json, sys
from dataclasses import dataclass
from pathlib import Path
from vmrun.bundle.arguments import pack_arguments

@dataclass
class Point:
    x: int

class Color(enum.Enum):
    red = 1

factor = 3

def times(y):
    return factor * y

class Adder:
    def __init__(self, n): self.n = n
    def __call__(self, y): return helper(self.n, y)

def helper(a, b): return a + b

items = [Point(7), Color.red, times, lambda y: times(y) + 1, Adder(5), {"deep": [Point(1), times]}]
pack_arguments(items, Path(sys.argv[1]))
"""


def test_what_is_defined_in_main_travels_by_value(tmp_path: Path) -> None:
    """Pickled by name it could not be found by any other process; here, and on a VM, `__main__` is another program."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    block = TaskBlock.decode((tmp_path / "arguments.blocks").read_bytes())
    point, color, times, plus, adder, deep = (pickle.loads(payload) for _, payload in block.items())
    assert (point.x, color.name, times(2), plus(2), adder(1)) == (7, "red", 6, 7, 6)
    assert (deep["deep"][0].x, deep["deep"][1](1)) == (1, 3)


def test_what_a_module_defines_travels_by_name(tmp_path: Path) -> None:
    packed = pack_arguments([functools.reduce, Path("a")], tmp_path)
    assert values(packed) == [functools.reduce, Path("a")]


def test_functions_of_different_items_do_not_share_their_globals(tmp_path: Path) -> None:
    """cloudpickle keeps globals by the identity of a dictionary that may be gone, and its address used again."""

    def make(name: str) -> object:
        space: dict[str, object] = {"__name__": name}
        exec("def where(): return globals()['__name__']", space)
        return space["where"]

    packed = pack_arguments((make(f"space{number}") for number in range(200)), tmp_path)
    assert [where() for where in values(packed)] == [f"space{number}" for number in range(200)]  # type: ignore[operator]


# --- unpicklable ---


class Holder:
    def __init__(self, **parts: object) -> None:
        self.__dict__.update(parts)


class Refuses:
    def __reduce__(self) -> object:
        raise OSError("not me")


def capture() -> object:
    lock = threading.Lock()
    return lambda: lock


def endless() -> object:
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    return nested


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (threading.Lock(), r"argument 2 \(_thread.lock\) cannot be pickled: TypeError: cannot pickle '_thread.lock'"),
        ({"a": 1, "b": [0, threading.Lock()]}, r"argument 2 \(dict\) .*: argument 2\['b'\]\[1\] is a _thread.lock"),
        ({threading.Lock()}, r"argument 2 element .* is a _thread.lock"),
        ((1, Holder(x=1, lock=threading.Lock())), r"argument 2\[1\]\.lock is a _thread.lock"),
        ((x for x in ()), r"argument 2 \(generator\)"),
        (capture(), r"argument 2 variable lock is a _thread.lock"),
        (Holder(deep=Refuses()), r"argument 2\.deep is a .*Refuses: OSError: not me"),
        (endless(), r"nested too deeply"),
    ],
    ids=["lock", "in a dict", "in a set", "in an object", "generator", "captured", "own reduce", "endless"],
)
def test_an_argument_that_cannot_be_pickled_is_named(tmp_path: Path, item: object, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        pack_arguments([0, 1, item, 3], tmp_path)
    assert caught.value.exit_code == 2
    assert "make it in the task" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_the_search_for_the_culprit_is_bounded(tmp_path: Path) -> None:
    class Wide:
        def __init__(self) -> None:
            self.parts = {number: list(range(5)) for number in range(100_000)}

        def __reduce__(self) -> object:
            raise ValueError("wide")

    with pytest.raises(UsageError, match=r"argument 0 \(.*Wide\) cannot be pickled: ValueError: wide"):
        pack_arguments([Wide()], tmp_path)


def test_interrupts_are_not_the_items_fault(tmp_path: Path) -> None:
    class Interrupts:
        def __reduce__(self) -> object:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack_arguments([Interrupts()], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_one_pickler_is_faster_than_one_per_item(tmp_path: Path) -> None:
    """What the loop is for: a million numbers in about a second. Both are timed here, in the same process."""
    import timeit

    count = 50_000

    def ours() -> None:
        (tmp_path / "arguments.blocks").unlink(missing_ok=True)
        pack_arguments(range(count), tmp_path)

    def plain() -> None:
        for number in range(count):
            cloudpickle.dumps(number, protocol=5)

    assert min(timeit.repeat(ours, number=1, repeat=3)) * 2 < min(timeit.repeat(plain, number=1, repeat=3))


# --- arrays ---


def arrays_and_others() -> Iterator[object]:
    for number in range(12):
        if number % 3 == 0:
            yield {"array": np.full(20_000, number), "second": np.arange(number * 30_000), "number": number}
        elif number % 3 == 1:
            yield np.arange(100)
        else:
            yield number


def test_arrays_are_parcels_of_their_own_and_all_else_is_as_before(tmp_path: Path) -> None:
    packed = pack_arguments(arrays_and_others(), tmp_path)
    data = bytearray(packed.path.read_bytes())
    assert hashlib.sha256(data).hexdigest() == packed.sha256
    found: list[object] = []
    forms = []
    for first, count, offset, size, digest in json.loads(packed.index):
        piece = memoryview(data)[offset : offset + size]
        assert hashlib.sha256(piece).hexdigest() == digest
        block = TaskBlock.decode(piece)
        assert (first, count) == (len(found), block.count)
        forms.append(block.call)
        for _, payload in block.items():
            found.append(parcels.load(payload) if block.call == "parcel" else pickle.loads(payload))
    assert forms == ["parcel", "one"] * 4
    for value, expected in zip(found, arrays_and_others(), strict=True):
        if isinstance(expected, dict):
            assert isinstance(value, dict)
            assert value["number"] == expected["number"]
            assert np.array_equal(value["array"], expected["array"])
            assert np.array_equal(value["second"], expected["second"])
            assert value["array"].flags.writeable
        else:
            assert np.array_equal(value, expected)  # type: ignore[arg-type]


def test_calls_with_arrays_are_parcels_too(tmp_path: Path) -> None:
    packed = pack_arguments([((np.zeros(100_000), 1), {"b": 2})], tmp_path, call="call")
    block = TaskBlock.decode(packed.path.read_bytes())
    assert block.call == "parcel-call"
    (array, one), named = parcels.load(block.payload)
    assert (array.sum(), one, named) == (0.0, 1, {"b": 2})


def test_an_array_is_not_copied_on_its_way_to_the_file(tmp_path: Path) -> None:
    array = np.ones(4_000_000)
    tracemalloc.start()
    try:
        pack_arguments([array] * 4, tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_an_array_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "ARGUMENT_MAX_BYTES", 1_000_000)
    with pytest.raises(UsageError, match=r"argument 1 is 1.*MB"):
        pack_arguments([np.ones(100_000), np.ones(200_000)], tmp_path)
    assert list(tmp_path.iterdir()) == []
