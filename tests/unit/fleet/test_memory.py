"""What is remembered of unavailable offers, in a file that anybody may damage."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from vmrun.core.clouds import CloudError, Fault, Offer
from vmrun.fleet.memory import AGE_MAX, BYTES_MAX, ENTRIES_MAX, FILE_NAME, Memory
from vmrun.fleet.search import RuledOut, ruled_out

NOW = 1_700_000_000.0
OFFER = Offer("ec2", "r6a.32xlarge", "us-east-1", "us-east-1a", "x86_64", 128, 64, 1 << 40, 7.26)


def entry(fault: Fault = Fault.stockout, at: float = NOW, **changes: object) -> RuledOut:
    (made,) = ruled_out(OFFER, CloudError("no", fault=fault), at)
    return replace(made, **changes)  # type: ignore[arg-type]


def test_what_is_noted_is_known_to_others_for_its_minutes(tmp_path: Path) -> None:
    Memory(tmp_path).note([entry()], NOW)
    other = Memory(tmp_path)
    assert other.recall(NOW + 179) == [entry()]
    assert other.recall(NOW + 180) == []


def test_a_newer_note_takes_the_place_of_the_same_one(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    memory.note([entry(), entry(zone="us-east-1b")], NOW)
    memory.note([entry(at=NOW + 60)], NOW + 60)
    assert memory.recall(NOW + 60) == [entry(zone="us-east-1b"), entry(at=NOW + 60)]


def test_nothing_lasts_and_nothing_counts_that_comes_from_the_future(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    memory.note([entry(until=NOW + 10**9), entry(zone="b", at=NOW + 50, until=NOW + 100)], NOW)
    assert [each.zone for each in memory.recall(NOW)] == ["us-east-1a"]
    assert memory.recall(NOW + AGE_MAX) == []


def test_the_file_is_bounded(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    memory.note([entry(zone=f"z{number}", at=NOW + number / 1000) for number in range(ENTRIES_MAX * 2)], NOW)
    assert len(memory.recall(NOW + 1)) == ENTRIES_MAX
    assert memory.recall(NOW + 1)[-1].zone == f"z{ENTRIES_MAX * 2 - 1}"
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b"null",
        b"{}",
        b'{"schema": 2, "entries": []}',
        b'{"schema": 1, "entries": 5}',
        b'{"schema": 1, "entries": [null, {}, {"on": 1}]}',
        b'{"schema": 1, "entries": []}' + b" " * BYTES_MAX,
    ],
)
def test_a_damaged_file_says_nothing_and_is_written_anew(tmp_path: Path, data: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(data)
    memory = Memory(tmp_path)
    assert memory.recall(NOW) == []
    memory.note([entry()], NOW)
    assert memory.recall(NOW) == [entry()]


@pytest.mark.parametrize(
    ("key", "value"),
    [("on", ""), ("zone", 5), ("spot", "yes"), ("fault", "odd"), ("at", "now"), ("until", None), ("bucket", None)],
)
def test_a_damaged_entry_is_left_out(tmp_path: Path, key: str, value: object) -> None:
    memory = Memory(tmp_path)
    memory.note([entry(), entry(zone="us-east-1b")], NOW)
    found = json.loads((tmp_path / FILE_NAME).read_bytes())
    found["entries"][0][key] = value
    (tmp_path / FILE_NAME).write_text(json.dumps(found))
    assert memory.recall(NOW) == [entry(zone="us-east-1b")]


def test_a_directory_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    memory = Memory(tmp_path / "file")
    memory.note([entry()], NOW)
    assert memory.recall(NOW) == []
