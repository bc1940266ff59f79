"""How records become bytes: canonical JSON of frozen dataclasses, checked against their types on the way back."""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import json
import sys
import types
import typing
from typing import Any, TypeVar

from .errors import Corrupt

T = TypeVar("T")


def sha256(data: bytes | memoryview) -> str:
    """Lower-case hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def canonical(data: object) -> bytes:
    """The one JSON text of `data`: sorted keys, no blanks, ASCII, no NaN."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def parse(text: bytes | str) -> Any:
    """The value of a JSON text; Corrupt if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"not JSON: {error}") from error


def to_data(record: object) -> Any:
    """A record as JSON values; fields that have their default are left out."""
    kind = type(record)
    if kind in _AS_THEY_ARE:
        return record
    if dataclasses.is_dataclass(kind):
        return {
            field.name: to_data(value)
            for field in _fields(kind)
            if not _is_default(field, value := getattr(record, field.name))
        }
    if isinstance(record, tuple | list):
        return [to_data(item) for item in record]
    if isinstance(record, dict):
        return {key: to_data(value) for key, value in record.items()}
    return record.value if isinstance(record, enum.Enum) else record


#: Most of what records hold.
_AS_THEY_ARE = frozenset({str, int, float, bool, type(None)})
#: An entry may hold thousands of records of one kind.
_fields = functools.cache(dataclasses.fields)


def _is_default(field: dataclasses.Field[Any], value: object) -> bool:
    if field.default is not dataclasses.MISSING:
        return type(field.default) is type(value) and bool(field.default == value)
    if field.default_factory is not dataclasses.MISSING:
        return bool(field.default_factory() == value)
    return False


def from_data(kind: type[T], data: object) -> T:
    """A record of `kind` from JSON values. Fields it does not know are ignored (newer writers may add some).

    Raises Corrupt where a field is missing or of another type.
    """
    return typing.cast(T, _build(kind, data, kind.__name__))


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _build(kind: Any, data: object, where: str) -> object:
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        return _build_record(kind, data, where)
    if origin in (typing.Union, types.UnionType):
        return _build_union(typing.get_args(kind), data, where)
    if origin is tuple:
        return _build_tuple(typing.get_args(kind), data, where)
    if origin is dict and isinstance(data, dict):
        value_kind = typing.get_args(kind)[1]
        return {str(key): _build(value_kind, value, f"{where}.{key}") for key, value in data.items()}
    if isinstance(kind, type) and issubclass(kind, enum.Enum) and data in [member.value for member in kind]:
        return kind(data)
    if origin is None and _is_plain(kind, data):
        return float(typing.cast(float, data)) if kind is float else data
    raise Corrupt(f"{where}: expected {getattr(kind, '__name__', kind)}, found {type(data).__name__}")


def _is_plain(kind: Any, data: object) -> bool:
    """Whether `data` is a value of the plain type `kind`; true and false are no numbers."""
    if kind is Any or kind is object:
        return True
    if kind is float:
        # Not `math.isfinite`: a whole number beyond all floats makes it raise.
        return isinstance(data, int | float) and not isinstance(data, bool) and abs(data) <= sys.float_info.max
    if kind is int:
        return isinstance(data, int) and not isinstance(data, bool)
    return isinstance(kind, type) and isinstance(data, kind)


def _build_record(kind: Any, data: object, where: str) -> object:
    if not isinstance(data, dict):
        raise Corrupt(f"{where}: expected an object, found {type(data).__name__}")
    hints, values = _hints(kind), {}
    for field in dataclasses.fields(kind):
        if field.name in data:
            values[field.name] = _build(hints[field.name], data[field.name], f"{where}.{field.name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise Corrupt(f"{where}.{field.name}: missing")
    return kind(**values)


def _build_union(kinds: tuple[Any, ...], data: object, where: str) -> object:
    if data is None and type(None) in kinds:
        return None
    options = [kind for kind in kinds if kind is not type(None)]
    for kind in options[:-1]:
        try:
            return _build(kind, data, where)
        except Corrupt:
            continue
    return _build(options[-1], data, where)


def _build_tuple(kinds: tuple[Any, ...], data: object, where: str) -> object:
    if not isinstance(data, list):
        raise Corrupt(f"{where}: expected a list, found {type(data).__name__}")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(_build(kinds[0], item, f"{where}[{at}]") for at, item in enumerate(data))
    if len(kinds) != len(data):
        raise Corrupt(f"{where}: expected {len(kinds)} values, found {len(data)}")
    return tuple(_build(kind, item, f"{where}[{at}]") for at, (kind, item) in enumerate(zip(kinds, data, strict=True)))
