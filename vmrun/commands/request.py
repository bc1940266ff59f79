"""From what stands on the command line to a SubmitRequest. Every value is checked before anything is done with it."""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vmrun.core.errors import UsageError
from vmrun.core.units import format_duration, parse_size
from vmrun.job import ANY_ARCH, CHECKS, check_python
from vmrun.names import check_name
from vmrun.registry import summary
from vmrun.submit.request import SubmitRequest

#: Seconds; no limit or grace that a person means is longer.
LONGEST_DURATION = 366 * 86400.0
#: Characters of an idempotency key, a region, a type of instance.
LONGEST_WORD = 200
_DURATIONS = ("task_timeout", "max_lifetime", "keep_warm", "keep_on_failure")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Regions, zones and types become part of calls to a cloud.
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
_EXAMPLE = "for example `vmrun submit job.py`, or `vmrun submit -- ./program --its-option`"


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of one submit as they were written."""

    #: Options by the name of their field in SubmitRequest; None where one was not given.
    options: Mapping[str, str | int | bool | None]
    packages: Sequence[str] = ()
    requirements: str | None = None
    env: Sequence[str] = field(default=(), repr=False)
    shared: str | None = None


def build_request(target: str | None, program: tuple[str, ...] | None, asked: Asked) -> SubmitRequest:
    """What to submit. Raises UsageError, naming the option, for whatever cannot be used."""
    checked = {name: check_option(name, value, auto=True) for name, value in asked.options.items() if value is not None}
    return SubmitRequest(
        target=check_target(target, program),
        argv=program or (),
        with_packages=tuple(_package(text) for text in asked.packages),
        requirements=_requirements(asked.requirements),
        shared_file=_shared(asked.shared),
        env=dict(_variable(text) for text in asked.env),
        **checked,  # type: ignore[arg-type]  # each option is checked to what its field holds
    )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def check_option(name: str, value: str | int, *, auto: bool = False) -> object:
    """The value of the option `--name`, checked and in its one form. Raises UsageError, naming the option.

    `auto`: whether the memory of a machine may be left open.
    """
    flag = _flag(name)
    if name == "memory" and not auto:
        return parse_size(value, flag)
    if name == "name":
        return check_name(str(value), flag)
    if name == "python":
        return check_python(value, flag)
    if name == "idempotency_key":
        return _printable(str(value), flag)
    if name in ("region", "zone", "instance_type") and not _PLAIN.fullmatch(_printable(str(value), flag)):
        raise UsageError(f"{flag}: {value!r} is no name of a cloud's", hint="such as us-east-1 or m7i.48xlarge")
    checked = CHECKS[name](value, flag)
    if name == "on":
        summary(checked)  # refuses a name that no driver has
    if name in _DURATIONS and checked > LONGEST_DURATION:
        raise UsageError(
            f"{flag}: {value!r} is longer than a year", hint=f"at most {format_duration(LONGEST_DURATION)}"
        )
    return checked


def check_described(options: Mapping[str, str | int | None]) -> dict[str, Any]:
    """The fields of a Need that are described by options; any architecture is none. Raises UsageError, as above."""
    said: dict[str, Any] = {name: check_option(name, value) for name, value in options.items() if value is not None}
    return {name: value for name, value in said.items() if (name, value) != ("arch", ANY_ARCH)}


def _printable(text: str, what: str) -> str:
    if not text.strip() or len(text) > LONGEST_WORD:
        raise UsageError(
            f"{what}: expected 1 to {LONGEST_WORD} characters, found {len(text)}", hint="choose a short one"
        )
    if any(unicodedata.category(character)[0] == "C" for character in text):
        raise UsageError(
            f"{what}: {text[:60]!r} has characters that cannot be printed", hint="use letters, digits and signs"
        )
    return text


# --- what to run ---


def check_target(target: str | None, program: tuple[str, ...] | None) -> str:
    """`job.py` or `job.py::name`, there and well-formed; "" for a native command, which then must be given."""
    if target is None:
        if not program:
            raise UsageError("there is nothing to run", hint=_EXAMPLE)
        if not program[0].strip() or any("\0" in argument for argument in program):
            raise UsageError(f"{program[0][:80]!r} is not the name of a program", hint=_EXAMPLE)
        return ""
    path, separator, name = target.partition("::")
    if not path.endswith(".py"):
        raise UsageError(
            f"{target[:200]!r} is not a Python file",
            hint=f"a program stands after `--`: `vmrun submit -- {target[:80]}`",
        )
    if separator and not name.isidentifier():
        raise UsageError(
            f"{target[:200]!r}: {name[:80]!r} is not the name of a job",
            hint=f"write {path[:80]}::name with the name of a function that has @vmrun.job",
        )
    _check_file(path)
    return target


def _check_file(path: str) -> None:
    if "\0" in path:
        raise UsageError(f"{path[:200]!r} is not a path", hint=_EXAMPLE)
    if os.path.isdir(path):
        raise UsageError(f"{path} is a directory", hint="name the file in it that is the job")
    if not os.path.exists(path):
        raise UsageError(f"there is no file {path}", hint=_nearby(path))
    if not os.access(path, os.R_OK):
        raise UsageError(f"{path} cannot be read", hint=f"`chmod u+r {path}`")


def _nearby(path: str) -> str:
    folder, name = os.path.split(path)
    try:
        names = [entry.name for entry in os.scandir(folder or ".") if entry.name.endswith(".py")]
    except OSError:
        return f"there is no directory {folder} either"
    close = difflib.get_close_matches(name, names, n=1)
    return (
        f"did you mean {os.path.join(folder, close[0])}?" if close else "check the path; jobs are files that end in .py"
    )


# --- packages and variables ---


def _package(text: str) -> str:
    _printable(text, "--with")
    if text.lstrip().startswith("-"):
        raise UsageError(
            f"--with: {text!r} is an option, not a package", hint="such as --with numpy --with 'scipy>=1.14'"
        )
    return text.strip()


def _requirements(path: str | None) -> str | None:
    if path is None or os.path.isfile(path):
        return path
    what = "is a directory" if os.path.isdir(path) else "does not exist"
    raise UsageError(f"--requirements: {path[:200]!r} {what}", hint="name a file with one requirement a line")


def _shared(path: str | None) -> str | None:
    if path is None:
        return None
    if "\0" in path or not os.path.isfile(path):
        what = "is a directory" if os.path.isdir(path) else "is not a file that exists"
        raise UsageError(f"--shared: {path[:200]!r} {what}", hint="name one file; pack several with tar")
    if not os.access(path, os.R_OK):
        raise UsageError(f"--shared: {path[:200]!r} cannot be read", hint=f"`chmod u+r {path[:200]}`")
    return path


def _variable(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not _ENV_NAME.fullmatch(name):
        # Only what stands where the name belongs: the rest may be a secret.
        raise UsageError(f"--env: {_first_word(text)[:60]!r} is not NAME=VALUE", hint="such as --env LEVEL=2")
    if "\0" in value:
        raise UsageError(f"--env: the value of {name} has a NUL character", hint="no variable can hold one")
    return name, value


def _first_word(text: str) -> str:
    return re.split(r"[\s=:]", text, maxsplit=1)[0]
