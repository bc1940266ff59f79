"""Where settings are written: the file and the environment, read into raw values that know where they stand."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmrun.core.errors import ConfigError

FILE_NAME = "vmrun.toml"
#: Bytes; a configuration that a person wrote is far smaller.
LARGEST_FILE = 1024 * 1024
PREFIX = "VMRUN_"
#: Variables that are no settings: where vmrun's directories are, what it tells tasks and its own processes, switches.
OTHER_VARIABLES = frozenset(
    {
        "VMRUN_CACHE_DIR",
        "VMRUN_CHECKPOINTS",
        "VMRUN_CONFIG_DIR",
        "VMRUN_DEBUG",
        "VMRUN_FLUSH_GRACE",
        "VMRUN_JOB",
        "VMRUN_MACHINE",
        "VMRUN_MACHINE_DIRECTORY",
        "VMRUN_MUST_RUN",
        "VMRUN_OUTPUT",
        "VMRUN_STATE_DIR",
        "VMRUN_TASK",
        "VMRUN_WORKER",
    }
)
#: Test suites name what they need themselves.
TEST_PREFIX = "VMRUN_TEST_"
#: Short names of settings.
ALIASES = {"VMRUN_STORE": ("store", "url")}
_AT_LINE = re.compile(r"^(?P<what>.*) \(at line (?P<line>\d+), column \d+\)$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Raw:
    """A value as it was written."""

    value: Any
    #: Where: `vmrun.toml, line 3`, or the name of a variable.
    origin: str
    #: Directory that a relative path in the value starts from.
    base: Path


#: The keys that there are, by table.
Keys = Mapping[str, frozenset[str]]
#: Raw values by table and key.
Tables = dict[str, dict[str, Raw]]


def find_file(cwd: Path, config_dir: Path) -> Path | None:
    """The file that counts: the one in `cwd`, else the one in the configuration directory, else none."""
    for path in (cwd / FILE_NAME, config_dir / FILE_NAME):
        if os.path.lexists(path):
            return path
    return None


def read_file(path: Path, keys: Keys) -> Tables:
    """The file's values. Raises ConfigError, naming the line, for what is not TOML, and for unknown tables and keys."""
    text = _text(path)
    try:
        data = tomllib.loads(text)
    except RecursionError as error:
        raise ConfigError(f"{path}: nested too deeply", hint=_HINT) from error
    except ValueError as error:
        found = _AT_LINE.match(str(error))
        where = f"{path}, line {found['line']}" if found else str(path)
        raise ConfigError(f"{where}: {found['what'] if found else error}", hint=_HINT) from error
    tables: Tables = {}
    for section, table in data.items():
        if not isinstance(table, dict):
            raise ConfigError(
                f"{_at(path, text, section, '')}: {section[:80]} stands outside of any table",
                hint=f"keys stand below the name of their table in brackets, such as [defaults]; {_SEE}",
            )
        check_known(section, None, keys, _at(path, text, section, ""))
        tables[section] = {}
        for key, value in table.items():
            where = _at(path, text, section, key)
            check_known(section, key, keys, where)
            tables[section][key] = Raw(value, where, path.parent)
    return tables


def check_known(section: str, key: str | None, keys: Keys, where: str) -> None:
    """ConfigError if there is no such table, or no such key in it; the hint names what is close to it."""
    table = key is None or section not in keys
    name, known, prefix = (section, sorted(keys), "") if table else (key or "", sorted(keys[section]), f"{section}.")
    if name not in known:
        close = difflib.get_close_matches(name[:80], known, n=1)
        hint = f"did you mean {prefix}{close[0]}?" if close else f"known: {', '.join(known)}"
        place = f"{where}: " if where else ""
        raise ConfigError(f"{place}unknown {'table' if table else 'key'} {prefix}{name[:80]}", hint=hint)


_SEE = "`vmrun init` writes a file that lists every key"
_HINT = f"the file is TOML; {_SEE}"


def _text(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}", hint="make it a readable file, or remove it"
        ) from error
    if len(data) > LARGEST_FILE:
        raise ConfigError(f"{path} has more than {LARGEST_FILE} bytes", hint="is it a vmrun.toml at all?")
    try:
        # Some editors begin UTF-8 files with a mark, which is no part of the text.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}, line {line}: not UTF-8", hint="save the file as UTF-8") from error


def _at(path: Path, text: str, section: str, key: str) -> str:
    line = line_of(text, section, key)
    return f"{path}, line {line}" if line else str(path)


def line_of(text: str, section: str, key: str) -> int:
    """Number of the line on which `section.key` is written, or its table; 0 if that cannot be told.

    Good for messages only: it reads lines, not TOML.
    """
    table, name = (rf"[\"']?{re.escape(word)}[\"']?\s*" for word in (section, key))
    header = re.compile(rf"\s*\[+\s*{table}(\.\s*{name}[^\]]*)?\]")
    plain = re.compile(rf"\s*{name}[=.]")
    dotted = re.compile(rf"\s*{table}(\.\s*{name}[=.]|=)")
    inside, best = section == "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("["):
            inside = section != "" and header.match(line) is not None
            best = best or (number if inside else 0)
        elif key and inside and plain.match(line):
            return number
        elif section and dotted.match(line):
            best = best or number
    return best


def read_environment(environ: Mapping[str, str], cwd: Path, keys: Keys) -> Tables:
    """The settings among the environment's variables; an empty variable counts as unset.

    Raises ConfigError for a variable that starts like one of vmrun's and is none.
    """
    tables: Tables = {}
    known = {f"{PREFIX}{section}_{key}".upper(): (section, key) for section, of in keys.items() for key in of}
    known |= ALIASES
    for name, text in environ.items():
        if not name.startswith(PREFIX) or name in OTHER_VARIABLES or name.startswith(TEST_PREFIX):
            continue
        if name not in known:
            raise _unknown_variable(name, known)
        if text:
            section, key = known[name]
            # The short name counts less than the one that says exactly what is meant.
            if name in ALIASES and environ.get(f"{PREFIX}{section}_{key}".upper()):
                continue
            tables.setdefault(section, {})[key] = Raw(text, name, cwd)
    return tables


def _unknown_variable(name: str, known: Mapping[str, object]) -> ConfigError:
    close = difflib.get_close_matches(name[:80], [*known, *OTHER_VARIABLES], n=1, cutoff=0.75)
    hint = f"did you mean {close[0]}?" if close else "variables are VMRUN_TABLE_KEY, such as VMRUN_STORE_ENDPOINT"
    return ConfigError(f"{name[:80]}: vmrun has no such environment variable", hint=f"{hint}; else unset it")
