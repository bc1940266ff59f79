"""Large results on their way home: read in pieces, checked to the last byte, and only then opened."""

from __future__ import annotations

import json
import struct
import tracemalloc
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.agent.bench import Bench, Switch
from tests.unit.core.world import JOB, VM
from tests.unit.runner.keeping import keep_large
from vmrun.agent.commit import Batch
from vmrun.core import keys
from vmrun.core.blocks import Form, ResultBlock
from vmrun.core.errors import Corrupt
from vmrun.core.ledger import JobLedger
from vmrun.core.parcels import PAGE
from vmrun.store.counting import CountingStore
from vmrun.watch.results import ResultReader, value_of

MEGA = 1024 * 1024


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, Switch())


def committed(bench: Bench, *paths: Path) -> None:
    """Have a VM commit files of large results, of a job of as many tasks."""
    bench.submit(len(paths), len(paths), kind="map")
    bench.vm(VM)
    ledger = JobLedger(bench.desk(f"vm:{VM}", bench.blobs), JOB)
    (plan,) = ledger.refresh().shards()
    shard = ledger.shard(plan)
    assert shard.claim(VM)
    batch = Batch(bench.blobs, JOB, shard, VM, clock=bench.clock)
    for task, path in enumerate(paths):
        batch.add_large(task, str(path))
    assert batch.commit()


def values(bench: Bench) -> list[Any]:
    return list(ResultReader(bench.desk(), JOB).values())


def segments(bench: Bench) -> list[str]:
    return [found.key for found in bench.memory.list(keys.segment(JOB, ""))]


def test_arrays_come_home_as_they_were(bench: Bench) -> None:
    fixed = np.arange(MEGA)
    fixed.flags.writeable = False
    sent = [np.arange(MEGA), fixed, [np.arange(MEGA), "text"], b"x" * 3 * MEGA]
    committed(bench, *(keep_large(bench.folder, value, task) for task, value in enumerate(sent)))
    one, two, (three, text), four = values(bench)
    for found, writeable in ((one, True), (two, False), (three, True)):
        assert np.array_equal(found, np.arange(MEGA))
        assert found.flags.writeable == writeable
    assert (text, four) == ("text", sent[3])
    opened = [value_of(outcome) for outcome in ResultReader(bench.desk(), JOB).outcomes()]
    assert np.array_equal(opened[2][0], three)


def test_a_large_array_is_in_memory_once(bench: Bench) -> None:
    committed(bench, keep_large(bench.folder, np.ones(4 * MEGA)))
    size = 32 * MEGA
    values(bench)
    tracemalloc.start()
    try:
        (found,) = values(bench)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (found.nbytes, float(found.sum())) == (size, 4.0 * MEGA)
    assert size <= held < size + MEGA
    assert peak < 1.5 * size


def test_a_large_result_is_one_request(bench: Bench) -> None:
    committed(bench, keep_large(bench.folder, np.ones(MEGA)), keep_large(bench.folder, np.ones(MEGA), 1))
    counting = CountingStore(bench.memory)
    assert len(list(ResultReader(bench.desk(blobs=counting), JOB).values())) == 2
    assert counting.requests["read"] == 2


@pytest.mark.parametrize("at", [0, 900, 1024, 1040, 1024 + PAGE, 1024 + 2 * PAGE + 5, -1])
@pytest.mark.parametrize("how", ["flipped", "cut", "longer"])
def test_what_was_not_signed_is_refused(bench: Bench, at: int, how: str) -> None:
    committed(bench, keep_large(bench.folder, np.ones(MEGA)))
    (key,) = segments(bench)
    data = bench.memory.get(key)
    at %= len(data)
    forged = {
        "flipped": data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :],
        "cut": data[:at],
        "longer": data[:at] + b"x" + data[at:],
    }
    bench.memory.replace(key, forged[how])
    with pytest.raises(Corrupt, match="signed"):
        values(bench)


def test_a_segment_that_is_gone_is_told(bench: Bench) -> None:
    committed(bench, keep_large(bench.folder, np.ones(MEGA)))
    (key,) = segments(bench)
    bench.memory.delete(key)
    with pytest.raises(Corrupt, match="missing"):
        values(bench)


def header(document: object) -> bytes:
    text = json.dumps(document).encode()
    return b"VMP1" + struct.pack("<I", len(text)) + text


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"no parcel",
        header({}),
        header({"python": "3.11", "pickle": 10**15, "buffers": []}),
        header({"python": "3.11", "pickle": 10, "buffers": [[10**15, 0]]}),
        header({"python": "3.11", "pickle": 2 * MEGA, "buffers": [[-2 * MEGA, 0]]}),
        b"VMP1" + struct.pack("<I", 2**31),
    ],
)
def test_a_damaged_parcel_that_was_signed_is_refused(bench: Bench, payload: bytes) -> None:
    """As the job's own processes may make it: it takes no more memory than there are bytes."""
    for size in (2 * MEGA, len(payload)):
        data = payload + bytes(size - len(payload))
        times = array("d", [1.0]), array("f", [1.0])
        block = ResultBlock(0, b"\0", array("Q", [len(data)]), data, *times, forms=bytes([Form.parcel]))
        folder = bench.folder / str(size)
        folder.mkdir()
        (folder / "large").write_bytes(block.encode())
        other = Bench(folder, Switch())
        committed(other, folder / "large")
        with pytest.raises(Corrupt, match="task 0"):
            values(other)


def test_results_from_before_there_were_parcels_open_still(bench: Bench) -> None:
    """Large ones had room of 1024 bytes for their head, and no column of forms."""
    import pickle

    document = pickle.dumps(np.arange(MEGA), 5)
    times = array("d", [1.0]), array("f", [1.0])
    block = ResultBlock(0, b"\0", array("Q", [len(document)]), b"", *times, facts={"attempt": 1})
    block.facts["pad"] = "." * (1024 - len(block.encode()) - len(',"pad":""'))
    path = bench.folder / "large"
    path.write_bytes(block.encode() + document)
    committed(bench, path)
    (found,) = values(bench)
    assert np.array_equal(found, np.arange(MEGA))
    assert found.flags.writeable
