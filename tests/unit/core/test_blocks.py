from __future__ import annotations

import json
import pickle
import struct
from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmrun.agent.runner.byvalue import ByValue
from vmrun.agent.runner.keeper import Keeper
from vmrun.agent.runner.shared import DONE, Shared
from vmrun.core.blocks import BlockError, Form, ResultBlock, Status, TaskBlock, failure, lengths_of, read_failure
from vmrun.core.columns import is_zero

PAYLOADS = st.lists(st.binary(max_size=12), max_size=8)


@st.composite
def task_blocks(draw: st.DrawFn) -> TaskBlock:
    payloads = draw(PAYLOADS)
    first, call = draw(st.integers(0, 10**12)), draw(st.sampled_from(["one", "call"]))
    python = draw(st.text(max_size=5))
    if draw(st.booleans()):
        numbers = array("q", draw(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=8)))
        return TaskBlock(first, array("Q"), b"", "one", python, numbers)
    return TaskBlock(first, lengths_of(payloads), b"".join(payloads), call, python)


@st.composite
def result_blocks(draw: st.DrawFn) -> ResultBlock:
    payloads = draw(PAYLOADS)
    count = len(payloads)
    reals = st.floats(width=32, allow_nan=False)

    def column(code: str, values: st.SearchStrategy[Any]) -> array[Any]:
        """A column, or one that is left out."""
        present = draw(st.booleans())
        return array(code, draw(st.lists(values, min_size=count, max_size=count)) if present else [])

    def whole(code: str) -> array[Any]:
        return array(code, draw(st.lists(reals, min_size=count, max_size=count)))

    in_a_row = draw(st.booleans()) and count > 0
    forms = bytes(draw(st.lists(st.sampled_from(list(Form)), min_size=count, max_size=count)))
    values = array("q", draw(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=count, max_size=count)))
    numbers = draw(st.booleans()) and any(forms)
    return ResultBlock(
        draw(st.integers(0, 10**12)),
        bytes(draw(st.lists(st.sampled_from(list(Status)), min_size=count, max_size=count))),
        lengths_of(payloads),
        b"".join(payloads),
        array("d") if in_a_row else whole("d"),
        array("f") if in_a_row else whole("f"),
        draw(st.text(max_size=5)),
        draw(st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=4), max_size=3)),
        forms=forms if numbers else b"",
        values=values if numbers else array("q"),
        cpu=column("f", reals),
        peak=column("I", st.integers(0, 2**32 - 1)),
        load=column("f", reals),
        keep=column("f", reals),
        ended=whole("d") if in_a_row else array("d"),
        began=draw(reals) if in_a_row else 0.0,
        epoch=draw(reals) if in_a_row else 0.0,
    )


def values(block: ResultBlock) -> list[Any]:
    """The payloads; where there is none, and the task succeeded, the number that stands for it."""
    found: list[Any] = []
    for at, (_, status, payload) in enumerate(block.items()):
        plain = status is Status.ok and not block.lengths[at]
        value = pickle.loads(payload) if plain else bytes(payload)
        found.append((type(value), struct.pack("<d", value) if isinstance(value, float) else value))
    return found


@given(result_blocks(), st.data())
def test_a_slice_of_results_holds_what_the_whole_holds_there(block: ResultBlock, data: st.DataObject) -> None:
    low = data.draw(st.integers(0, block.count))
    count = data.draw(st.integers(0, block.count - low))

    for part in (
        block.slice(block.first + low, count),
        ResultBlock.decode(block.slice(block.first + low, count).encode()),
    ):
        assert values(part) == values(block)[low : low + count]
        whole, timed = block.timed(), part.timed()
        assert list(timed.started) == list(whole.started[low : low + count])
        assert list(timed.seconds) == list(whole.seconds[low : low + count])


@pytest.mark.parametrize(
    ("results", "plain"),
    [
        ([None] * 3, True),
        ([1, -5, 2**63 - 1], True),
        ([1.5, -0.0, 1e300], True),
        ([True, False, True], True),
        ([1, 2.0, 3], False),
        ([1, None, 3], False),
        ([None, "x"], False),
    ],
)
def test_results_of_one_kind_are_had_without_a_look_at_each(results: list[Any], plain: bool) -> None:
    shared = Shared()
    shared.restart(7, 1)
    for row, value in enumerate(results):
        keeper = Keeper(shared, ByValue("", "j", "m"), "/nowhere", [0], lambda _: None)
        assert keeper.keep(row, value) == 0
        shared.started[row] = shared.seconds[row] = 0.0
        shared.words[DONE] = row + 1
    block = ResultBlock.decode(shared.results().encode())

    found = block.plain()
    assert (found is not None) == plain
    opened = [pickle.loads(payload) for _, _, payload in block.items()]
    for one in [opened, *([list(found)] if found is not None else [])]:
        assert [(type(value), repr(value)) for value in one] == [(type(value), repr(value)) for value in results]


@pytest.mark.parametrize(
    "change",
    [
        {"columns": ["forms", "values"]},
        {"columns": ["values"]},
        {"columns": ["nonsense"]},
        {"columns": "forms"},
        {"columns": None},
        {"began": 1.0},
        {"began": [1.0]},
        {"began": [1, "2"]},
    ],
    ids=str,
)
def test_columns_that_are_not_as_they_should_be_are_a_block_error(change: dict[str, Any]) -> None:
    text = json.dumps({**GOOD_HEAD, "count": 1, "columns": [], **change}).encode()
    with pytest.raises(BlockError):
        ResultBlock.decode(struct.pack("<4sI", b"VMR1", len(text)) + text + bytes(40))


@given(task_blocks())
def test_a_task_block_comes_back_from_its_bytes(block: TaskBlock) -> None:
    again = TaskBlock.decode(block.encode())

    assert (again.first, again.lengths, again.call, again.python, again.numbers, again.count) == (
        block.first, block.lengths, block.call, block.python, block.numbers, block.count,
    )  # fmt: skip
    assert bytes(again.payload) == block.payload
    assert [bytes(payload) for _, payload in again.items()] == [bytes(payload) for _, payload in block.items()]
    assert [task for task, _ in again.items()] == list(range(block.first, block.first + block.count))


@given(result_blocks())
def test_a_result_block_comes_back_from_its_bytes(block: ResultBlock) -> None:
    again = ResultBlock.decode(block.encode())

    assert (again.first, again.status, again.lengths, again.started, again.seconds, again.python, again.facts) == (
        block.first, block.status, block.lengths, block.started, block.seconds, block.python, block.facts,
    )  # fmt: skip
    assert bytes(again.payload) == block.payload
    assert (again.ended, again.began, again.epoch) == (block.ended, block.began, block.epoch)
    for name in ("cpu", "peak", "load", "keep"):
        # A column of zeros is as good as none.
        column = getattr(block, name)
        assert getattr(again, name) == (array("I") if is_zero(column.tobytes()) else column)
    assert values(again) == values(block)
    assert again.failed() == [task for task, status, _ in again.items() if status is not Status.ok]


@given(task_blocks(), st.data())
def test_a_slice_holds_what_the_whole_holds_there(block: TaskBlock, data: st.DataObject) -> None:
    low = data.draw(st.integers(0, block.count))
    count = data.draw(st.integers(0, block.count - low))

    part = block.slice(block.first + low, count)

    expected = [(task, bytes(payload)) for task, payload in block.items()][low : low + count]
    assert [(task, bytes(payload)) for task, payload in part.items()] == expected
    again = TaskBlock.decode(part.encode())
    assert [(task, bytes(payload)) for task, payload in again.items()] == expected


@given(task_blocks(), st.integers(-5, 20), st.integers(-5, 20))
def test_a_slice_outside_the_block_is_an_error(block: TaskBlock, low: int, count: int) -> None:
    inside = low >= 0 and count >= 0 and low + count <= block.count
    try:
        assert block.slice(block.first + low, count).count == count
    except BlockError:
        assert not inside
    else:
        assert inside


KINDS = pytest.mark.parametrize("kind", [TaskBlock, ResultBlock])


@KINDS
@given(st.binary(max_size=80))
def test_any_bytes_are_a_block_or_a_block_error(kind: type[TaskBlock | ResultBlock], data: bytes) -> None:
    for prefix in (b"", b"VMT1", b"VMR1"):
        try:
            kind.decode(prefix + data)
        except BlockError:
            pass


@given(task_blocks() | result_blocks(), st.data())
def test_damage_is_a_block_error_or_another_block(block: TaskBlock | ResultBlock, data: st.DataObject) -> None:
    whole = bytearray(block.encode())
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(whole)))
    for damaged in (bytes(whole), bytes(whole[:cut]), bytes(whole) + b"x"):
        try:
            again = type(block).decode(damaged)
        except BlockError:
            continue
        # What is still a block can be read to its end, and written again.
        assert sum(1 for _ in again.items()) == again.count
        assert type(block).decode(again.encode()).first == again.first


def test_each_kind_refuses_the_other() -> None:
    tasks = TaskBlock(0, lengths_of([b"a"]), b"a")
    outcomes = ResultBlock(0, b"\0", lengths_of([b"a"]), b"a", array("d", [0]), array("f", [0]))

    for kind, data in ((TaskBlock, outcomes.encode()), (ResultBlock, tasks.encode())):
        with pytest.raises(BlockError):
            kind.decode(data)


GOOD_HEAD = {"first": 0, "count": 0, "call": "one", "python": "3.11"}


@KINDS
@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"null",
        b"[]",
        b"[" * 60_000,
        b"\xff",
        b"9" * 5000,
        *(
            json.dumps({**GOOD_HEAD, **change}).encode()
            for change in (
                {"first": -1},
                {"first": True},
                {"first": 1.0},
                {"first": "0"},
                {"count": -1},
                {"count": 10**30},
                {"count": None},
                {"python": 3.11},
            )
        ),
        *(
            json.dumps({key: value for key, value in GOOD_HEAD.items() if key != name}).encode()
            for name in ("first", "count", "python")
        ),
    ],
    ids=range(17),
)
def test_a_hostile_header_is_a_block_error(kind: type[TaskBlock | ResultBlock], head: bytes) -> None:
    magic = b"VMT1" if kind is TaskBlock else b"VMR1"
    with pytest.raises(BlockError):
        kind.decode(struct.pack("<4sI", magic, len(head)) + head)


def test_a_task_block_without_its_way_of_calling_is_a_block_error() -> None:
    for head in ({**GOOD_HEAD, "call": 1}, {key: GOOD_HEAD[key] for key in ("first", "count", "python")}):
        text = json.dumps(head).encode()
        with pytest.raises(BlockError):
            TaskBlock.decode(struct.pack("<4sI", b"VMT1", len(text)) + text)


def test_a_result_block_with_facts_of_another_kind_is_a_block_error() -> None:
    text = json.dumps({**GOOD_HEAD, "facts": [1]}).encode()
    with pytest.raises(BlockError):
        ResultBlock.decode(struct.pack("<4sI", b"VMR1", len(text)) + text)


def test_a_header_that_no_reader_would_take_is_not_written() -> None:
    block = ResultBlock(0, b"", array("Q"), b"", array("d"), array("f"), facts={"note": "x" * 100_000})
    with pytest.raises(BlockError):
        block.encode()


def test_a_failure_is_readable_without_running_anything() -> None:
    payload = failure(Status.exited, "left", type_name="SystemExit", traceback="tb", exception="YWJj", code=3)

    assert read_failure(memoryview(payload)) == {
        "kind": "exited", "type": "SystemExit", "message": "left", "traceback": "tb", "exception": "YWJj", "code": 3,
    }  # fmt: skip
    assert "code" not in read_failure(failure(Status.lost, "gone"))


@pytest.mark.parametrize("payload", [b"", b"[]", b"1", b"\x80\x04", b"\xff", b"[" * 100_000, b"{"])
def test_a_damaged_failure_is_a_block_error(payload: bytes) -> None:
    with pytest.raises(BlockError):
        read_failure(payload)
