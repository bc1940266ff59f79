"""Google's own description of its APIs, as the SDK carries it: which request is which method, and what may stand in it.

What the documents do not know is refused here, though the real service may let it pass: a double that takes more than
is documented teaches a driver to send it.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import googleapiclient

#: The APIs that the double speaks; the documents of the SDK are those of the real services.
APIS = ("compute.v1", "cloudresourcemanager.v1", "cloudresourcemanager.v3", "cloudbilling.v1", "serviceusage.v1")
_DOCUMENTS = Path(googleapiclient.__file__).parent / "discovery_cache" / "documents"
_INTEGERS = {"int32": (-(1 << 31), (1 << 31) - 1), "uint32": (0, (1 << 32) - 1)}
_LONGS = {"int64": (-(1 << 63), (1 << 63) - 1), "uint64": (0, (1 << 64) - 1)}
_DURATION = re.compile(r"-?\d+(\.\d{1,9})?s")


class Invalid(Exception):
    """Something does not stand as the document says it must; `field` is where, as Google names it."""

    def __init__(self, field: str, value: object, reason: str) -> None:
        super().__init__(f"Invalid value for field '{field}': '{value}'. {reason}")
        self.field = field


@dataclass(frozen=True)
class Method:
    """One method of an API."""

    #: As `compute.instances.insert`.
    id: str
    http: str
    path: re.Pattern[str]
    parameters: Mapping[str, Mapping[str, Any]]
    request: Mapping[str, Any] | None
    response: Mapping[str, Any] | None
    scopes: tuple[str, ...]
    schemas: Mapping[str, Mapping[str, Any]] = field(repr=False)

    @property
    def collection(self) -> str:
        """As `instances`."""
        return self.id.split(".")[-2]

    @property
    def verb(self) -> str:
        """As `insert`."""
        return self.id.split(".")[-1]


def find(http: str, path: str) -> tuple[Method, dict[str, str]] | None:
    """The method that a request's verb and path (percent-encoded) name, and the parameters in the path."""
    for method in _methods():
        if method.http == http and (found := method.path.fullmatch(path)):
            return method, {name: urllib.parse.unquote(value) for name, value in found.groupdict().items()}
    return None


def check_parameters(method: Method, path: Mapping[str, str], query: Mapping[str, list[str]]) -> dict[str, Any]:
    """Parameters as what they are. Raises Invalid for one that is unknown, missing, repeated or of the wrong form."""
    found: dict[str, Any] = {}
    for name, values in [*((name, [value]) for name, value in path.items()), *query.items()]:
        known = method.parameters.get(name)
        if known is None:
            raise Invalid(name, values[0], f'Unknown name "{name}": Cannot bind query parameter.')
        if len(values) > 1 and not known.get("repeated"):
            raise Invalid(name, values[1], "The parameter is given more than once.")
        parsed = [_parameter(name, known, value) for value in values]
        found[name] = parsed if known.get("repeated") else parsed[0]
    for name, known in method.parameters.items():
        if known.get("required") and name not in found:
            raise Invalid(name, "", f"Required parameter '{name}' not specified.")
    return found


def _parameter(name: str, known: Mapping[str, Any], text: str) -> Any:
    value: Any = text
    if known["type"] == "boolean":
        if text not in ("true", "false"):
            raise Invalid(name, text, "Not a boolean.")
        value = text == "true"
    elif known["type"] == "integer":
        if not re.fullmatch(r"-?\d+", text):
            raise Invalid(name, text, "Not an integer.")
        value = int(text)
    _Checker({}, "", readonly=False).scalar(name, known, value)
    return value


def check_request(method: Method, body: Any) -> dict[str, Any]:
    """The body without the fields that only the service writes. Raises Invalid naming the field."""
    if method.request is None:
        if body not in (None, {}):
            raise Invalid("resource", "…", "This method takes no body.")
        return {}
    if not isinstance(body, dict):
        raise Invalid("resource", body, "Required parameter 'resource' not specified.")
    checked = _Checker(method.schemas, method.id, readonly=False).value("resource", method.request, body)
    assert isinstance(checked, dict)
    return checked


def check_response(method: Method, body: Any) -> None:
    """Raises Invalid when the double says what the real service could not say."""
    assert method.response is not None, method.id
    _Checker(method.schemas, "", readonly=True).value("response", method.response, body)


@dataclass(frozen=True)
class _Checker:
    schemas: Mapping[str, Mapping[str, Any]]
    #: The method whose required fields must be there; "": none.
    method: str
    #: Whether fields that only the service writes may stand.
    readonly: bool

    def value(self, where: str, schema: Mapping[str, Any], value: Any) -> Any:
        if "$ref" in schema:
            return self.value(where, self.schemas[schema["$ref"]], value)
        kind = schema["type"]
        if kind == "any":
            return value
        if kind == "object":
            return self.object(where, schema, value)
        if kind == "array":
            if not isinstance(value, list):
                raise Invalid(where, value, "Not an array.")
            items = schema["items"]
            if "pattern" in schema and "$ref" not in items:
                items = {**items, "pattern": schema["pattern"]}
            return [self.value(f"{where}[{n}]", items, one) for n, one in enumerate(value)]
        self.scalar(where, schema, value)
        return value

    def object(self, where: str, schema: Mapping[str, Any], value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise Invalid(where, value, "Not an object.")
        properties = schema.get("properties", {})
        others = schema.get("additionalProperties")
        checked = {}
        for name, one in value.items():
            known = properties.get(name, others)
            if known is None:
                raise Invalid(f"{where}.{name}", one, f"Unknown name \"{name}\" at '{where}': Cannot find field.")
            seen = self.value(f"{where}.{name}", known, one)
            if self.readonly or not known.get("readOnly"):
                checked[name] = seen
        for name, known in properties.items():
            required = known.get("annotations", {}).get("required", ())
            if self.method in required and name not in value:
                raise Invalid(f"{where}.{name}", "", "No value is given, but one is required.")
        return checked

    def scalar(self, where: str, schema: Mapping[str, Any], value: Any) -> None:
        kind, form = schema["type"], schema.get("format", "")
        if kind == "boolean":
            fits = isinstance(value, bool)
        elif kind == "integer":
            low, high = _INTEGERS.get(form, _INTEGERS["int32"])
            low, high = max(low, int(schema.get("minimum", low))), min(high, int(schema.get("maximum", high)))
            fits = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        elif kind == "number":
            fits = isinstance(value, int | float) and not isinstance(value, bool)
        else:
            fits = isinstance(value, str) and _formed(form, value)
        if not fits:
            raise Invalid(where, value, f"It must be of type {form or kind}.")
        if "enum" in schema and value not in schema["enum"]:
            raise Invalid(where, value, f"It must be one of {', '.join(schema['enum'])}.")
        if "pattern" in schema and not _pattern(schema["pattern"]).fullmatch(str(value)):
            raise Invalid(where, value, f"Must be a match of regex '{schema['pattern']}'")


def _formed(form: str, text: str) -> bool:
    if form in _LONGS:
        low, high = _LONGS[form]
        return bool(re.fullmatch(r"-?\d{1,20}", text)) and low <= int(text) <= high
    if form == "byte":
        try:
            base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
        except binascii.Error:
            return False
    if form == "google-datetime":
        return is_time(text)
    if form == "google-duration":
        return bool(_DURATION.fullmatch(text))
    return True


def is_time(text: str) -> bool:
    """Whether it is a moment as RFC 3339 writes it, with its zone."""
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


@functools.cache
def _pattern(text: str) -> re.Pattern[str]:
    # Google's patterns are for RE2, which takes a "-" before a class as itself; Python does too, with a warning.
    return re.compile(text.replace("9-_", r"9\-_"))


@functools.cache
def _methods() -> tuple[Method, ...]:
    """Those with fewer parameters in their path first, so that a literal word wins over any name."""
    found = [method for api in APIS for method in _of(json.loads((_DOCUMENTS / f"{api}.json").read_text("utf-8")))]
    return tuple(sorted(found, key=lambda method: method.path.groups))


def _of(document: Mapping[str, Any]) -> Iterator[Method]:
    base = "/" + document["servicePath"]
    for one in _resources(document):
        yield Method(
            id=one["id"],
            http=one["httpMethod"],
            path=_path(base + one["path"], one.get("parameters", {})),
            parameters={**document["parameters"], **one.get("parameters", {})},
            request=one.get("request"),
            response=one.get("response"),
            scopes=tuple(one.get("scopes", ())),
            schemas=document["schemas"],
        )


def _resources(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from node.get("methods", {}).values()
    for below in node.get("resources", {}).values():
        yield from _resources(below)


def _path(template: str, parameters: Mapping[str, Mapping[str, Any]]) -> re.Pattern[str]:
    """`{+name}` stands for as much of the path as the parameter's own pattern says."""
    parts = re.split(r"(\{\+?\w+\})", template)
    text = ""
    for part in parts:
        if part.startswith("{+"):
            inner = parameters[part[2:-1]].get("pattern", ".+").removeprefix("^").removesuffix("$")
            text += f"(?P<{part[2:-1]}>{inner})"
        elif part.startswith("{"):
            text += f"(?P<{part[1:-1]}>[^/:]+)"
        else:
            text += re.escape(part)
    return re.compile(text)
