"""The text of `vmrun.toml`: every key with its meaning and default, made from the models."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from enum import Enum

from pydantic.fields import FieldInfo

from vmrun.core.secret import Secret

from .fields import DOLLARS, Section
from .models import SECTIONS

_HEAD = """\
# The configuration of vmrun: every key, its meaning and its default. No key is needed for running on this machine.
#
# The file is `vmrun.toml` in the current directory, else in the configuration directory. Environment variables win
# over it: VMRUN_TABLE_KEY, such as VMRUN_DEFAULTS_ON=docker, and VMRUN_STORE for the store's URL. Durations are written
# 90s, 10m, 2h30m, 1d; sizes 512MB, 16GB, 1.5TiB.
"""
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def reference_text(*, live: bool) -> str:
    """The file. `live`: keys are set to their defaults; else they are commented out, to be set as needed."""
    parts = [_HEAD]
    for name, model in SECTIONS.items():
        doc = inspect.cleandoc(model.__doc__ or "")
        parts += [f"# {line}" for line in doc.splitlines()]
        parts += [f"[{name}]", *_keys(model, live=live), ""]
    return "\n".join(parts)


def _keys(model: type[Section], *, live: bool) -> Iterator[str]:
    for key, field in model.model_fields.items():
        yield f"# {field.description}"
        unset = field.default is None
        # A key that is unset by default shows what it is in the table that it would overrule.
        shown = toml(SECTIONS["vm"].model_fields[key] if unset else field)
        yield f"{'' if live and not unset else '#'}{key} = {shown}"


def toml(field: FieldInfo) -> str:
    """A field's default as TOML."""
    value = field.default
    if isinstance(value, Secret):
        return '""'
    if isinstance(value, Enum):
        return json.dumps(value.value)
    if field.json_schema_extra == DOLLARS:
        return f"{value:g}"
    if isinstance(value, float):
        return f'"{_duration(value)}"'
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def _duration(seconds: float) -> str:
    for unit, letter in _UNITS:
        if seconds >= 2 * unit and seconds % unit == 0:
            return f"{seconds // unit:.0f}{letter}"
    return f"{seconds:g}s"
