"""Large results: what a worker writes, and what whoever reads it gets."""

from __future__ import annotations

import gc
import io
import pickle
import struct
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.runner.keeping import keep_large
from vmrun.agent.runner.byvalue import ByValue
from vmrun.agent.runner.functions import Ended, read_results
from vmrun.agent.runner.keeper import ROOM, Keeper
from vmrun.agent.runner.shared import Shared
from vmrun.core import parcels
from vmrun.core.blocks import PYTHON, BlockError, Form, ResultBlock, Status
from vmrun.core.parcels import APART, PAGE, Parcel

MEGA = 1024 * 1024


def block_of(path: Path) -> ResultBlock:
    return ResultBlock.decode(path.read_bytes())


def opened(path: Path) -> Any:
    """The value in a worker's file, as a client gets it."""
    block = block_of(path)
    assert block.forms == bytes([Form.parcel])
    return parcels.apart(block.payload).load()


def for_reduce(path: Path, *files: Path) -> str:
    """A file of results, as an agent gathers them."""
    with path.open("wb") as out:
        for file in files:
            data = file.read_bytes()
            out.write(struct.pack("<Q", len(data)) + data)
    return str(path)


def test_a_large_array_lies_beside_its_pickle(tmp_path: Path) -> None:
    value = np.arange(MEGA, dtype="float64").reshape(1024, 1024)
    path = keep_large(tmp_path, value, task=7)
    block = block_of(path)
    assert (block.first, block.count, block.status, block.facts["attempt"]) == (7, 1, bytes([Status.ok]), 1)
    parcel = Parcel.decode(block.payload)
    assert [len(buffer) for buffer in parcel.buffers] == [value.nbytes]
    assert len(parcel.pickle) < 1000
    # The array's bytes are in the file once, at a multiple of a page from where the parcel begins.
    assert path.stat().st_size <= ROOM + value.nbytes + 2 * PAGE
    assert path.read_bytes().index(value.tobytes()) % PAGE == ROOM
    found = opened(path)
    assert np.array_equal(found, value)
    found[0, 0] = -1.0
    assert found[0, 0] == -1.0


def test_objects_with_several_buffers_come_back_as_from_a_plain_pickle(tmp_path: Path) -> None:
    fixed = np.arange(APART, dtype="uint8")
    fixed.flags.writeable = False
    value = {
        "one": [np.zeros(MEGA), np.ones(MEGA, dtype="int32")],
        "empty": np.zeros(0),
        "small": np.arange(10),
        "fixed": fixed,
        "fortran": np.asfortranarray(np.arange(20_000.0).reshape(100, 200)),
        "strided": np.arange(200_000.0)[::2],
        "array": array("d", range(100_000)),
        "buffers": (pickle.PickleBuffer(bytearray(b"w" * APART)), pickle.PickleBuffer(b"r" * APART)),
        "none": pickle.PickleBuffer(bytearray()),
        "bytes": b"b" * MEGA,
        "text": "x",
        "function": lambda x: x + 1,
    }
    value["again"] = value["one"][0]
    found = opened(keep_large(tmp_path, value))
    assert list(found) == list(value)
    for name in ("empty", "small", "fixed", "fortran", "strided"):
        assert np.array_equal(found[name], value[name])
        assert (found[name].dtype, found[name].flags.writeable) == (value[name].dtype, name != "fixed")
    assert found["fortran"].flags.f_contiguous
    assert [part.flags.writeable for part in found["one"]] == [True, True]
    assert (float(found["one"][0].sum()), int(found["one"][1].sum())) == (0.0, MEGA)
    assert found["again"] is found["one"][0]
    # Of the types that they have when they are within the pickle.
    assert found["buffers"] == (bytearray(b"w" * APART), b"r" * APART)
    assert [type(part) for part in found["buffers"]] == [bytearray, bytes]
    assert (found["none"], type(found["none"])) == (bytearray(), bytearray)
    assert (found["array"], found["bytes"], found["text"]) == (value["array"], value["bytes"], "x")
    assert found["function"](1) == 2


def test_more_buffers_than_a_page_of_header_has_room_for(tmp_path: Path) -> None:
    # The pickle of many megabytes is moved; it is longer than what is moved at once.
    value = [np.full(APART, at % 251, dtype="uint8") for at in range(700)], list(range(3 * MEGA))
    path = keep_large(tmp_path, value)
    parcel = Parcel.decode(block_of(path).payload)
    assert len(parcel.buffers) == 700
    assert len(parcel.pickle) > 5 * MEGA
    arrays, numbers = opened(path)
    assert [(int(one[0]), int(one[-1]), len(one)) for one in arrays] == [
        (at % 251, at % 251, APART) for at in range(700)
    ]
    assert numbers == value[1]


def test_each_buffer_has_memory_of_its_own(tmp_path: Path) -> None:
    small, large = opened(keep_large(tmp_path, (bytearray_of(APART), bytearray_of(8 * MEGA))))
    assert len(small.base) == APART
    assert len(large.base) == 8 * MEGA


def bytearray_of(size: int) -> np.ndarray:
    return np.frombuffer(bytearray(size), dtype="uint8")


@pytest.mark.parametrize("value", [b"x" * 2 * MEGA, ["word"] * MEGA, "x" * 2 * MEGA, np.zeros((MEGA, 4))[:, ::2]])
def test_what_has_no_large_buffer_stays_a_pickle(tmp_path: Path, value: Any) -> None:
    path = keep_large(tmp_path, value)
    block = block_of(path)
    assert block.forms == b""
    assert np.array_equal(pickle.loads(block.payload), value)
    assert next(read_results(for_reduce(tmp_path / "results", path))) is not None


def test_whoever_owns_a_buffer_may_resize_it_afterwards(tmp_path: Path) -> None:
    mine = bytearray(2 * MEGA)
    keep_large(tmp_path, pickle.PickleBuffer(mine))
    mine.extend(b"more")
    assert len(mine) == 2 * MEGA + 4


def test_a_value_that_fails_late_leaves_no_file(tmp_path: Path) -> None:
    class Sour:
        def __reduce__(self) -> Any:
            raise TypeError("not me")

    shared = Shared()
    shared.restart(0, 1)
    keeper = Keeper(shared, ByValue("", "j", "m"), str(tmp_path), [0], lambda _: None)
    mine = bytearray(2 * MEGA)
    assert keeper.keep(0, [pickle.PickleBuffer(mine), b"x" * 2 * MEGA, Sour()]) == Status.unpicklable
    assert list(tmp_path.iterdir()) == []
    # The value itself was in what was raised.
    gc.collect()
    mine.clear()


# --- in a reduce ---


def test_a_reduce_reads_parcels_and_pickles_alike(tmp_path: Path) -> None:
    values = [np.full(MEGA, 1.0), b"x" * 2 * MEGA, [np.full(MEGA, 2.0), "x"]]
    files = [keep_large(tmp_path, value, task) for task, value in enumerate(values)]
    small = tmp_path / "small"
    document = pickle.dumps({"n": 3})
    times = array("d", [1.0]), array("f", [1.0])
    small.write_bytes(ResultBlock(3, b"\0", array("Q", [len(document)]), document, *times).encode())
    found = list(read_results(for_reduce(tmp_path / "results", *files, small)))
    assert [type(value) for value in found] == [np.ndarray, bytes, list, dict]
    found[0] += 1
    assert (float(found[0].sum()), found[1], float(found[2][0].sum())) == (2.0 * MEGA, values[1], 2.0 * MEGA)


@pytest.mark.parametrize("cut", [1, MEGA, 8 * MEGA - 1, 8 * MEGA + PAGE + 300])
def test_a_reduce_refuses_results_that_are_cut_short(tmp_path: Path, cut: int) -> None:
    path = for_reduce(tmp_path / "results", keep_large(tmp_path, np.full(MEGA, 1.0)))
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[:-cut])
    with pytest.raises(BlockError):
        list(read_results(path))


def test_a_reduce_opens_no_parcel_of_another_python(tmp_path: Path) -> None:
    path = for_reduce(tmp_path / "results", keep_large(tmp_path, np.full(MEGA, 1.0)))
    data, mine = Path(path).read_bytes(), f'"python":"{PYTHON}"'.encode()
    other = mine.replace(PYTHON.encode(), b"9" * len(PYTHON))
    Path(path).write_bytes(data.replace(mine, other, 1))
    with pytest.raises(Ended) as caught:
        list(read_results(path))
    assert caught.value.status is Status.unpicklable


# --- reading a parcel ---


def test_a_parcel_is_read_as_it_was_written(tmp_path: Path) -> None:
    payload = bytes(block_of(keep_large(tmp_path, np.arange(MEGA))).payload)
    parcel = Parcel.read(io.BytesIO(payload + b"what follows"), len(payload))
    assert np.array_equal(parcel.load(), np.arange(MEGA))
    for length in (0, 3, 8, 100, PAGE, PAGE + 10, len(payload) - 1):
        with pytest.raises(BlockError):
            Parcel.read(io.BytesIO(payload), length)
        with pytest.raises(BlockError):
            Parcel.read(io.BytesIO(payload[:length]), len(payload))
