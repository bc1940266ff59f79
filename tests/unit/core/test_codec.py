from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmrun.core import codec
from vmrun.core.errors import Corrupt
from vmrun.core.model import JobSpec, Need
from vmrun.core.records import TYPES

KINDS = sorted(TYPES.values(), key=lambda kind: kind.TYPE)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
st.register_type_strategy(float, FINITE)


@dataclass(frozen=True, slots=True)
class Inner:
    number: int
    text: str = "x"


@dataclass(frozen=True, slots=True)
class Outer:
    required: str
    inner: Inner
    flag: bool = False
    ratio: float = 1.0
    maybe: int | None = None
    either: int | str = 0
    pair: tuple[int, str] = (0, "")
    many: tuple[Inner, ...] = ()
    table: dict[str, int] = field(default_factory=dict)
    anything: Any = None


WHOLE = {"required": "r", "inner": {"number": 1}}


@pytest.mark.parametrize("kind", [*KINDS, JobSpec, Need, Outer], ids=lambda kind: kind.__name__)
@settings(max_examples=30)
@given(data=st.data())
def test_a_record_comes_back_from_its_bytes_as_it_was(kind: type, data: st.DataObject) -> None:
    values = st.builds(kind, anything=st.none() | st.text()) if kind is Outer else st.from_type(kind)
    record = data.draw(values)

    text = codec.canonical(codec.to_data(record))

    assert codec.from_data(kind, codec.parse(text)) == record
    assert codec.canonical(codec.to_data(codec.from_data(kind, codec.parse(text)))) == text


def test_defaults_are_left_out_and_come_back() -> None:
    assert codec.to_data(Outer("r", Inner(1))) == WHOLE
    assert codec.from_data(Outer, WHOLE) == Outer("r", Inner(1))


def test_a_value_that_only_equals_the_default_is_written() -> None:
    # False == 0 and 1 == 1.0, but they are other JSON values, and the reader is strict about it.
    assert codec.to_data(Outer("r", Inner(1), ratio=1))["ratio"] == 1  # type: ignore[arg-type]
    assert codec.to_data(Outer("r", Inner(1), flag=0)) == {**WHOLE, "flag": 0}  # type: ignore[arg-type]


def test_fields_of_newer_writers_are_ignored() -> None:
    newer = {**WHOLE, "colour": "red", "inner": {"number": 1, "depth": [1, {"a": None}]}}

    assert codec.from_data(Outer, newer) == Outer("r", Inner(1))


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"required": 1}, "Outer.required"),
        ({"required": None}, "Outer.required"),
        ({"inner": []}, "Outer.inner"),
        ({"inner": {}}, "Outer.inner.number"),
        ({"inner": {"number": True}}, "Outer.inner.number"),
        ({"inner": {"number": 1.0}}, "Outer.inner.number"),
        ({"inner": {"number": "1"}}, "Outer.inner.number"),
        ({"flag": 1}, "Outer.flag"),
        ({"ratio": True}, "Outer.ratio"),
        ({"ratio": "1"}, "Outer.ratio"),
        ({"ratio": float("inf")}, "Outer.ratio"),
        ({"ratio": float("nan")}, "Outer.ratio"),
        ({"ratio": 10**400}, "Outer.ratio"),
        ({"ratio": -(10**400)}, "Outer.ratio"),
        ({"maybe": "1"}, "Outer.maybe"),
        ({"either": 1.5}, "Outer.either"),
        ({"either": None}, "Outer.either"),
        ({"pair": [1]}, "Outer.pair"),
        ({"pair": [1, "a", 2]}, "Outer.pair"),
        ({"pair": {"0": 1}}, "Outer.pair"),
        ({"many": {"number": 1}}, "Outer.many"),
        ({"many": [{"number": 1}, {"number": "2"}]}, "Outer.many[1].number"),
        ({"table": [["a", 1]]}, "Outer.table"),
        ({"table": {"a": "b"}}, "Outer.table.a"),
    ],
)
def test_a_wrong_type_is_corrupt_and_named(change: dict[str, Any], where: str) -> None:
    with pytest.raises(Corrupt) as caught:
        codec.from_data(Outer, {**WHOLE, **change})

    assert caught.value.message.startswith(f"{where}:")


@pytest.mark.parametrize("field_name", ["required", "inner"])
def test_a_missing_field_is_corrupt_and_named(field_name: str) -> None:
    with pytest.raises(Corrupt, match=rf"^Outer\.{field_name}: missing"):
        codec.from_data(Outer, {key: value for key, value in WHOLE.items() if key != field_name})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.TYPE)
@settings(max_examples=30)
@given(data=st.data())
def test_any_json_is_a_record_or_corrupt(kind: type, data: st.DataObject) -> None:
    names = [f.name for f in dataclasses.fields(kind)]
    shaped = st.fixed_dictionaries({}, optional=dict.fromkeys(names, JSON))
    value = data.draw(JSON | shaped)
    try:
        record = codec.from_data(kind, value)
    except Corrupt:
        return
    assert isinstance(record, kind)


@given(st.binary(max_size=64))
def test_any_bytes_are_json_or_corrupt(data: bytes) -> None:
    try:
        value = codec.parse(data)
    except Corrupt:
        return
    assert json.loads(data) == value or value != value


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, "\xff", b"\xff\xfe", b"", "nul"])
def test_hostile_text_is_corrupt(text: str | bytes) -> None:
    with pytest.raises(Corrupt):
        codec.parse(text)


def test_canonical_text_is_one_for_equal_data() -> None:
    assert codec.canonical({"b": 1, "a": [True, None, "é"]}) == b'{"a":[true,null,"\\u00e9"],"b":1}'
    assert codec.canonical({"a": [True, None, "é"], "b": 1}) == codec.canonical({"b": 1, "a": [True, None, "é"]})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_no_reader_could_read_is_not_written(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        codec.canonical({"a": value})
