"""Makes settings of raw values: merges the sources, checks every value, and says of each mistake where it stands."""

from __future__ import annotations

import os
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vmrun.core.errors import ConfigError
from vmrun.core.secret import Secret
from vmrun.core.units import format_duration

from . import DEFAULT_STORE, Settings, cache_dir, config_dir, state_dir
from .fields import Section
from .models import FILE_PATHS, SECTIONS
from .sources import Keys, Raw, Tables, check_known, find_file, read_environment, read_file

#: What pydantic calls a wrong type, and what is expected instead.
_EXPECTED = {
    "string_type": "a text in quotes",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "float_type": "a number",
    "tuple_type": "a list of texts",
    "is_instance_of": "a text in quotes",
}
_LIMITS = {"ge": "at least", "le": "at most", "min_length": "at least this many characters:"}
_WHOLE = re.compile(r"-?[0-9]{1,18}")
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def load(overrides: Mapping[str, object], *, environ: Mapping[str, str], cwd: Path) -> Settings:
    """As `vmrun.settings.load_settings`."""
    directory = config_dir(environ)
    path = find_file(cwd, directory)
    keys = {name: frozenset(model.model_fields) for name, model in SECTIONS.items()}
    tables = read_file(path, keys) if path is not None else {}
    _merge(tables, _typed(read_environment(environ, cwd, keys)))
    _merge(tables, _dotted(overrides, cwd, keys))
    sections = {name: _build(name, model, tables.get(name, {}), directory) for name, model in SECTIONS.items()}
    settings = Settings(
        **sections,  # type: ignore[arg-type]  # each name has its model, see SECTIONS
        config_dir=directory,
        state_dir=state_dir(environ),
        cache_dir=cache_dir(environ),
        store_is_default="url" not in tables.get("store", {}),
        source=(path,) if path is not None else (),
    )
    _check_times(settings, tables)
    return settings


def _merge(tables: Tables, later: Tables) -> None:
    for section, values in later.items():
        tables.setdefault(section, {}).update(values)


def _dotted(overrides: Mapping[str, object], cwd: Path, keys: Keys) -> Tables:
    tables: Tables = {}
    for dotted, value in overrides.items():
        section, _, key = dotted.partition(".")
        check_known(section, key, keys, "")
        tables.setdefault(section, {})[key] = Raw(value, "", cwd)
    return tables


# --- values ---


def _typed(tables: Tables) -> Tables:
    """The environment's texts as values of the type that their key has; one that is none stays a text."""
    return {
        section: {key: Raw(_from_text(section, key, raw.value), raw.origin, raw.base) for key, raw in values.items()}
        for section, values in tables.items()
    }


def _from_text(section: str, key: str, text: str) -> object:
    kind = SECTIONS[section].model_fields[key].annotation
    if kind is int and _WHOLE.fullmatch(text.strip()):
        return int(text)
    if kind is bool and text.strip().lower() in (*_TRUE, *_FALSE):
        return text.strip().lower() in _TRUE
    if typing.get_origin(kind) is tuple:
        return text.replace(",", " ").split()
    return text


def _build(name: str, model: type[Section], values: Mapping[str, Raw], config: Path) -> Section:
    try:
        section = model.model_validate({key: raw.value for key, raw in values.items()})
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=True, include_input=False)[0]
        key = str(details["loc"][0]) if details["loc"] else ""
        raise _wrong(name, key, values[key], _reason(details)) from error
    paths: dict[str, object] = {
        key: _file(name, key, raw) for key, raw in values.items() if (name, key) in FILE_PATHS and getattr(section, key)
    }
    if name == "store":
        paths["url"] = _store_url(values.get("url"), config)
    return section.model_copy(update=paths)


def _reason(details: Any) -> str:
    if details["type"] in _EXPECTED:
        return f"expected {_EXPECTED[details['type']]}"
    for limit, words in _LIMITS.items():
        if limit in details.get("ctx", {}):
            return f"must be {words} {details['ctx'][limit]:g}"
    return str(details["msg"]).removeprefix("Value error, ")


def _wrong(section: str, key: str, raw: Raw, reason: str) -> ConfigError:
    shown = "" if _is_secret(section, key) or _says(reason, raw.value) else f", found {_show(raw.value)}"
    return ConfigError(
        f"{_place(section, key, raw)}: {reason}{shown}",
        hint="`vmrun init` writes a file that lists every key with its meaning and default",
    )


def _says(reason: str, value: object) -> bool:
    return isinstance(value, str) and value != "" and repr(value)[:20] in reason


def _show(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) >= 10**40:
        return "a number of more than 40 digits"
    text = f"a {'table' if isinstance(value, dict) else 'list'}" if isinstance(value, dict | list) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _is_secret(section: str, key: str) -> bool:
    field = SECTIONS[section].model_fields[key]
    return field.annotation is Secret or not field.repr


def _place(section: str, key: str, raw: Raw) -> str:
    return f"{raw.origin}: {section}.{key}" if raw.origin else f"{section}.{key}"


def _file(section: str, key: str, raw: Raw) -> str:
    path: str = os.path.abspath(raw.base / os.path.expanduser(raw.value))
    if not os.path.isfile(path):
        raise _wrong(section, key, raw, f"there is no file {path}")
    return path


def _store_url(raw: Raw | None, config: Path) -> str:
    """The store's URL: as given, a path made a file URL, or the default directory."""
    if raw is None or not raw.value.strip():
        import platformdirs

        if (chosen := _chosen_before(config)) is not None:
            return chosen
        return f"file://{platformdirs.user_data_path('vmrun') / 'store'}"
    text: str = raw.value.strip()
    scheme, separator, rest = text.partition("://")
    if not separator:
        return f"file://{os.path.abspath(raw.base / os.path.expanduser(text))}"
    if not scheme.isalnum() or not rest:
        raise _wrong("store", "url", raw, "expected a URL such as file:///path or s3://bucket/prefix")
    if scheme == "file" and not rest.startswith("/"):
        raise _wrong("store", "url", raw, "a file:// URL has three slashes and an absolute path")
    return text


def _chosen_before(config: Path) -> str | None:
    """The default that an earlier use of this configuration directory settled on.

    So that a copy of the directory leads to the same jobs, wherever the copy's home is.
    """
    try:
        text = (config / DEFAULT_STORE).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return text if text.startswith("file:///") else None


# --- what must fit together ---


def _check_times(settings: Settings, tables: Tables) -> None:
    """A VM must get the chance to beat twice before silence counts against it."""
    for on in ("", "local", "docker", "ssh", "ec2", "gce", "ibm"):
        times = settings.section_for(on)
        for key in ("lease", "dead_after"):
            if getattr(times, key) < 2 * times.heartbeat:
                raise _misfit(settings, on, key, tables)


def _misfit(settings: Settings, on: str, key: str, tables: Tables) -> ConfigError:
    times, names, origins = settings.section_for(on), [], []
    for name in (key, "heartbeat"):
        section = on if name in settings.driver_table(on) else "vm"
        raw = tables.get(section, {}).get(name)
        names.append(f"{section}.{name}")
        origins += [f"{raw.origin}: "] if raw is not None and raw.origin else []
    long, short = format_duration(getattr(times, key)), format_duration(times.heartbeat)
    return ConfigError(
        f"{''.join(origins[:1])}{names[0]} ({long}) is less than twice {names[1]} ({short})",
        hint=f"raise {names[0]} or lower {names[1]}: one late sign of life must not cost a machine",
    )
