"""The descriptions of Google's APIs that come with its client library, as a judge of what is sent."""

from __future__ import annotations

import importlib.resources
import json
from functools import cache
from typing import Any

#: What a number or a text that stands for one may be.
_TEXT_FORMATS = {"int64": int, "uint64": int}
_KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "object": (dict,),
    "array": (list,),
}


@cache
def document(api: str = "compute.v1") -> dict[str, Any]:
    """The description of an API."""
    folder = importlib.resources.files("googleapiclient") / "discovery_cache" / "documents"
    found: dict[str, Any] = json.loads((folder / f"{api}.json").read_text("utf-8"))
    return found


def wrong(value: Any, schema: str, api: str = "compute.v1") -> list[str]:
    """All that is wrong with a body of this schema: fields that are unknown or output only, types, enumerations."""
    return list(_wrong(value, {"$ref": schema}, document(api)["schemas"], schema))


def _wrong(value: Any, rule: dict[str, Any], schemas: dict[str, Any], at: str) -> list[str]:
    while "$ref" in rule:
        rule = schemas[rule["$ref"]]
    kinds = _KINDS.get(rule.get("type", "any"))
    if kinds is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
        return [f"{at}: {value!r} is no {rule['type']}"]
    if rule.get("format") in _TEXT_FORMATS and isinstance(value, str) and not value.lstrip("-").isdigit():
        return [f"{at}: {value!r} is no {rule['format']}"]
    if "enum" in rule and value not in rule["enum"]:
        return [f"{at}: {value!r} is none of {rule['enum']}"]
    if isinstance(value, list):
        return [each for n, item in enumerate(value) for each in _wrong(item, rule["items"], schemas, f"{at}[{n}]")]
    if not isinstance(value, dict):
        return []
    found = []
    for key, item in value.items():
        field = rule.get("properties", {}).get(key) or rule.get("additionalProperties")
        if field is None:
            found.append(f"{at}.{key}: there is no such field")
        elif field.get("readOnly") or "[Output Only]" in field.get("description", "")[:40]:
            found.append(f"{at}.{key}: is output only")
        else:
            found += _wrong(item, field, schemas, f"{at}.{key}")
    return found
