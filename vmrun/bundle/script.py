"""Reads a job file without running it: its PEP 723 block, its syntax, and whether it makes use of `vmrun.job`."""

from __future__ import annotations

import ast
import re
import tomllib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vmrun.core.errors import ConfigError, UsageError
from vmrun.job import CHECKS, check_options, check_python, unknown_option

#: A larger file is data, not source.
SCRIPT_MAX_BYTES = 16 * 1024 * 1024
#: The regular expression of PEP 723.
_BLOCK = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$")
_BLOCK_START = re.compile(r"(?m)^# /// script$")
_TOML_POSITION = re.compile(r"\(at (?:line (?P<line>\d+), column \d+|end of document)\)")
#: Keys of `[tool.vmrun]` that are not options of `@vmrun.job`: they are needed before the file is run.
_HEADER_ONLY = ("include", "python")


@dataclass(frozen=True, slots=True)
class JobTarget:
    """`job.py` or `job.py::name`."""

    path: Path
    #: "" when the file's only job is meant.
    name: str = ""


@dataclass(frozen=True, slots=True)
class ScriptHeader:
    """What the PEP 723 block says; empty without one."""

    #: A version specifier, such as `>=3.11`; "" for any.
    requires_python: str = ""
    #: Requirements, as in PEP 508.
    dependencies: tuple[str, ...] = ()
    #: `[tool.vmrun]`, checked: sizes in bytes, durations in seconds.
    options: dict[str, Any] = field(default_factory=dict)
    #: Globs of further files that the job needs, relative to the script's directory.
    include: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Script:
    """A job file that was read, and whose syntax is right."""

    path: Path
    header: ScriptHeader
    tree: ast.Module
    #: Whether it mentions `vmrun.job`; if not, it is a plain script and need not be imported to know that.
    uses_job: bool


def parse_target(text: str) -> JobTarget:
    """The file and the name in `job.py::name`. Raises UsageError."""
    path, separator, name = text.partition("::")
    if not path or (separator and not name.isidentifier()):
        raise UsageError(
            f"{text[:200]!r} does not name a job",
            hint="write job.py, or job.py::name for one of several jobs in it",
        )
    return JobTarget(Path(path), name)


def read_script(path: Path) -> Script:
    """Read and check a job file. Raises UsageError (file, syntax, block) or ConfigError (a key of `[tool.vmrun]`)."""
    text = _read_text(path)
    header = parse_header(text, str(path))
    tree = _parse(text, path)
    return Script(path, header, tree, _uses_job(tree))


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(SCRIPT_MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file", hint="a native command stands after --") from error
    except IsADirectoryError as error:
        raise UsageError(f"{path} is a directory", hint="name the Python file in it") from error
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}", hint="check the path and its permissions") from error
    if len(data) > SCRIPT_MAX_BYTES:
        raise UsageError(
            f"{path} is larger than {SCRIPT_MAX_BYTES // 1024**2} MiB",
            hint="a job file is Python source; a program to run stands after --",
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"{path}, line {line}: not UTF-8",
            hint="save the file as UTF-8; a program to run stands after --",
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _parse(text: str, path: Path) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text, str(path))
    except SyntaxError as error:
        line = (error.text or "").strip()
        shown = f": {line[:120]}" if line else ""
        raise UsageError(
            f"{path}, line {error.lineno}: {error.msg}{shown}",
            hint="`python -m py_compile` on the file shows the same",
        ) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise UsageError(f"{path} cannot be parsed: {error}", hint="is it Python source?") from error


# --- the PEP 723 block ---


def parse_header(text: str, file: str) -> ScriptHeader:
    """The `script` block in `text`; `file` stands in messages. Raises UsageError or ConfigError."""
    blocks = [match for match in _BLOCK.finditer(text + "\n") if match["type"] == "script"]
    starts = [text.count("\n", 0, match.start()) + 1 for match in _BLOCK_START.finditer(text)]
    if len(blocks) > 1:
        first, second = (text.count("\n", 0, match.start()) + 1 for match in blocks[:2])
        raise UsageError(
            f"{file}: two `# /// script` blocks, on lines {first} and {second}",
            hint="merge them: a script has one",
        )
    if not blocks:
        if starts:
            raise UsageError(
                f"{file}, line {starts[0]}: the `# /// script` block does not end",
                hint="every line of it starts with `#`, the last is `# ///`",
            )
        return ScriptHeader()
    content = "".join(
        line[2:] if line.startswith("# ") else line[1:] for line in blocks[0]["content"].splitlines(keepends=True)
    )
    data = _parse_toml(content, file, starts[0])
    return _header(data, file)


def _parse_toml(content: str, file: str, start: int) -> dict[str, Any]:
    try:
        return tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        place = _TOML_POSITION.search(str(error))
        inside = int(place["line"]) if place and place["line"] else content.count("\n") + 1
        message = _TOML_POSITION.sub("", str(error)).strip()
        raise UsageError(
            f"{file}, line {start + inside}: {message} (in the `# /// script` block)",
            hint='the block is TOML, such as: # dependencies = ["numpy"]',
        ) from error


def _header(data: Mapping[str, Any], file: str) -> ScriptHeader:
    requires = data.get("requires-python", "")
    if not isinstance(requires, str):
        raise UsageError(f"{file}: requires-python must be a text", hint='such as requires-python = ">=3.11"')
    dependencies = _texts(data.get("dependencies", []), f"{file}: dependencies", UsageError)
    tool = data.get("tool", {})
    own = tool.get("vmrun", {}) if isinstance(tool, Mapping) else {}
    if not isinstance(own, Mapping):
        raise ConfigError(f"{file}: tool.vmrun must be a table", hint="write [tool.vmrun] and keys below it")
    options, include = _options(own, file)
    return ScriptHeader(requires, dependencies, options, include)


def _options(own: Mapping[str, Any], file: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`[tool.vmrun]`: options by their names with `_` (hyphens are taken too), and the `include` globs."""
    where = f"{file}: tool.vmrun"
    options: dict[str, Any] = {}
    include: tuple[str, ...] = ()
    seen: dict[str, str] = {}
    for written, value in own.items():
        key = written.replace("-", "_")
        if key in seen:
            raise ConfigError(f"{where}.{written}: said before, as {seen[key]}", hint="leave one of them out")
        seen[key] = written
        if key == "include":
            include = _texts(value, f"{where}.include", ConfigError)
        elif key not in CHECKS and key not in _HEADER_ONLY:
            raise unknown_option(written, f"{where}.{written}", (*CHECKS, *_HEADER_ONLY), ConfigError)
        else:
            options[key] = _checked(key, value, where)
    return options, include


def _checked(key: str, value: object, where: str) -> Any:
    try:
        if key == "python":
            return check_python(value, f"{where}.python")
        return check_options({key: value}, where)[key]
    except ConfigError:
        raise
    except UsageError as error:
        raise ConfigError(error.message.replace(f"{where}: {key}", f"{where}.{key}"), hint=error.hint) from error


def _texts(value: object, where: str, kind: type[UsageError]) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value):
        raise kind(f"{where} must be a list of texts", hint='such as ["numpy", "pandas>=2"]')
    return tuple(value)


# --- is there a job in it? ---


def _uses_job(tree: ast.Module) -> bool:
    """Whether the file imports vmrun and mentions `job` of it.

    Only then is the file imported at submit: a script that merely uses other parts of vmrun (an Executor, say)
    would do its work right there.
    """
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name == "vmrun" or alias.name.startswith("vmrun."):
                    modules.add(alias.asname or "vmrun")
                    if alias.name == "vmrun.job":
                        return True
        elif (
            isinstance(node, ast.ImportFrom)
            and not node.level
            and (
                node.module == "vmrun.job"
                or (node.module == "vmrun" and any(alias.name in ("job", "Job", "*") for alias in node.names))
            )
        ):
            return True
    return bool(modules) and any(
        isinstance(node, ast.Attribute)
        and node.attr in ("job", "Job")
        and isinstance(node.value, ast.Name)
        and node.value.id in modules
        for node in ast.walk(tree)
    )
