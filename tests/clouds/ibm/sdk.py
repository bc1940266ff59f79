"""The API as the real SDK knows it: every operation's method, path, parameters, body and answer, and what fits them.

All of it is read from `ibm_vpc` itself, so that what this double takes and gives is what the SDK of the day sends
and understands: an unknown field, a missing one, a value of the wrong kind or outside its enumeration is named.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import ibm_vpc.vpc_v1 as vpc

_ABSTRACT = "Cannot instantiate base class"


@dataclass(frozen=True)
class Misfit:
    """One thing about a body that the API has no place for."""

    #: `unknown`, `missing`, `kind` or `enum`.
    what: str
    #: Path of the field, such as `boot_volume_attachment.volume.capacity`.
    field: str
    message: str


@dataclass(frozen=True)
class Operation:
    """One call of the API, as the SDK sends it."""

    name: str
    method: str
    #: Matches the path below `/v1`, its parameters as groups.
    path: re.Pattern[str]
    query: frozenset[str]
    #: The type of the body, or its fields with type and whether they must be there.
    body: Any = None
    #: The model of the answer; None where there is no body.
    answer: Any = None
    depth: int = field(default=0, compare=False)


def _type_hints(of: Any) -> dict[str, Any]:
    return typing.get_type_hints(of, vars(vpc))


@cache
def operations() -> dict[str, Operation]:
    """Every operation of `VpcV1` by its name."""
    text = Path(inspect.getsourcefile(vpc) or "").read_text()
    text = text[text.index("class VpcV1(") : text.index("\nclass ", text.index("class VpcV1("))]
    found = {}
    for block in re.split(r"\n    def (?=[a-z])", text)[1:]:
        operation = _operation(block)
        if operation is not None:
            found[operation.name] = operation
    return found


def _operation(block: str) -> Operation | None:
    name = block[: block.index("(")]
    url = re.search(r"\n        url = '([^']+)'", block)
    method = re.search(r"method='([A-Z]+)'", block)
    if url is None or method is None:
        return None
    params = re.search(r"\n        params = \{(.*?)\n        \}", block, re.DOTALL)
    answer = re.search(r"result representing an? `(\w+)` object", block)
    return Operation(
        name,
        method[1],
        re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", re.escape(url[1]).replace(r"\{", "{").replace(r"\}", "}"))),
        frozenset(re.findall(r"'([\w.]+)':", params[1])) if params else frozenset(),
        _body(name, block),
        getattr(vpc, answer[1], None) if answer else None,
        url[1].count("{"),
    )


def _body(name: str, block: str) -> Any:
    fields = re.search(r"\n        data = \{(.*?)\n        \}", block, re.DOTALL)
    whole = re.search(r"\n        data = json\.dumps\((\w+)\)", block)
    if fields is None and whole is None:
        return None
    call = getattr(vpc.VpcV1, name)
    hints, parameters = _type_hints(call), inspect.signature(call).parameters
    if fields is None and whole is not None:
        return hints[whole[1]]
    assert fields is not None
    return {
        key: (hints[value], parameters[value].default is inspect.Parameter.empty)
        for key, value in re.findall(r"'(\w+)': (\w+),", fields[1])
    }


def find(method: str, path: str) -> tuple[Operation, dict[str, str]] | None:
    """The operation that a request asks for, with the parameters in its path; the most literal path wins."""
    for operation in sorted(operations().values(), key=lambda one: one.depth):
        match = operation.path.fullmatch(path)
        if match and operation.method == method:
            return operation, match.groupdict()
    return None


def check_body(operation: Operation, body: Any) -> list[Misfit]:
    """What does not fit about a request's body."""
    if isinstance(operation.body, dict):
        return _check_fields(operation.body, body, "", {})
    return check(operation.body, body)


def check(expected: Any, value: Any, path: str = "") -> list[Misfit]:
    """What does not fit when `value`, as read from JSON, is taken for `expected`, a model or another type."""
    origin = typing.get_origin(expected)
    if origin in (typing.Union, types.UnionType):
        kinds = [one for one in typing.get_args(expected) if one is not type(None)]
        return [] if value is None else _nearest(kinds, value, path)
    if origin in (list, typing.List):  # noqa: UP006
        if not isinstance(value, list):
            return [Misfit("kind", path, f"{path} must be a list")]
        (kind,) = typing.get_args(expected)
        return [misfit for at, one in enumerate(value) for misfit in check(kind, one, f"{path}[{at}]")]
    if inspect.isclass(expected) and expected.__module__ == vpc.__name__:
        return _check_model(expected, value, path)
    return _check_plain(expected, value, path)


def _check_plain(expected: Any, value: Any, path: str) -> list[Misfit]:
    kinds: dict[Any, Any] = {str: str, int: int, float: (int, float), bool: bool, datetime: str}
    if expected not in kinds:
        return []
    wrong = not isinstance(value, kinds[expected]) or (expected in (int, float) and isinstance(value, bool))
    return [Misfit("kind", path, f"{path} must be of type {expected.__name__}")] if wrong else []


def _nearest(kinds: list[Any], value: Any, path: str) -> list[Misfit]:
    """The misfits of the kind that fits best; of equals, the one that lacks fewer fields."""
    tried = [check(kind, value, path) for kind in kinds]
    return min(tried, key=lambda misfits: (len(misfits), sum(one.what == "missing" for one in misfits)), default=[])


@cache
def concrete(model: Any) -> tuple[Any, ...]:
    """The models that a model stands for: itself, or, where it is only a common name, all that can be made of it."""
    if not any(isinstance(text, str) and text.startswith(_ABSTRACT) for text in model.__init__.__code__.co_consts):
        return (model,)
    return tuple(dict.fromkeys(one for below in model.__subclasses__() for one in concrete(below)))


@cache
def fields(model: Any) -> dict[str, tuple[Any, bool]]:
    """A model's fields by their names in JSON: type, and whether it must be there."""
    hints = _type_hints(model.__init__)
    return {
        name.rstrip("_"): (hints.get(name, Any), parameter.default is inspect.Parameter.empty)
        for name, parameter in inspect.signature(model.__init__).parameters.items()
        if name not in ("self", "kwargs")
    }


def _check_model(model: Any, value: Any, path: str) -> list[Misfit]:
    choices = concrete(model)
    if choices != (model,):
        return _nearest(list(choices), value, path)
    misfits = _check_fields(fields(model), value, path, vars(model))
    if not misfits:
        model.from_dict(value)
    return misfits


def _check_fields(known: dict[str, tuple[Any, bool]], value: Any, path: str, names: Any) -> list[Misfit]:
    if not isinstance(value, dict):
        return [Misfit("kind", path, f"{path or 'the body'} must be an object")]
    at = f"{path}." if path else ""
    misfits = [
        Misfit("unknown", f"{at}{key}", f"{at}{key} is not a field of the API") for key in value if key not in known
    ]
    for key, (kind, required) in known.items():
        if value.get(key) is None:
            if required:
                misfits.append(Misfit("missing", f"{at}{key}", f"{at}{key} is required"))
            continue
        misfits += check(kind, value[key], f"{at}{key}")
        enumeration = names.get("".join(part.title() for part in key.split("_")) + "Enum")
        if enumeration is not None and isinstance(value[key], str) and value[key] not in list(enumeration):
            misfits.append(
                Misfit("enum", f"{at}{key}", f"{at}{key} must be one of {[str(e.value) for e in enumeration]}")
            )
    return misfits
