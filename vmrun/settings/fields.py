"""Types of the keys of the configuration, and what they have in common: sizes, durations, text, secrets.

Durations are seconds, sizes are bytes; both are written the way people write them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from vmrun.core.errors import UsageError
from vmrun.core.secret import Secret
from vmrun.core.units import parse_duration, parse_money, parse_size
from vmrun.job import ANY_ARCH, ARCHITECTURES, ON_OOM, check_python

V = TypeVar("V")
#: Seconds; no lease, deadline or grace that a person means is longer.
LONGEST_DURATION = 366 * 86400.0
#: Bytes; beyond any machine, and still a number that every cloud's API takes.
LARGEST_SIZE = 1 << 60


def _checked(parse: Callable[[Any], V]) -> Callable[[Any], V]:
    """`parse` as pydantic wants it: a value that cannot be used is a ValueError, whatever `parse` raises for it."""

    def check(value: Any) -> V:
        try:
            return parse(value)
        except UsageError as error:
            # The caller knows where the value stands, and says so itself.
            text = error.message.partition(": ")[2] or error.message
            raise ValueError(f"{text}; {error.hint}" if error.hint else text) from error

    return check


def _number(value: object, expected: str) -> str | int | float:
    """What a size or duration may be written as; TOML's whole numbers have no limit, and a float's do."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        if isinstance(value, int) and abs(value) > LARGEST_SIZE:
            raise ValueError("out of range")
        return value
    raise ValueError(f"expected {expected}")


def _duration(value: object) -> float:
    seconds = parse_duration(_number(value, "a duration such as 90s or 2h30m"))
    if seconds > LONGEST_DURATION:
        raise ValueError("longer than a year")
    return seconds


def _size(value: object) -> int:
    written = _number(value, "a size such as 16GB or 1.5TiB")
    size = parse_size(str(written) if isinstance(written, float) else written)
    if size > LARGEST_SIZE:
        raise ValueError("larger than any machine")
    return size


def _money(value: object) -> float:
    return parse_money(_number(value, "dollars such as 25 or 2.50"))


def _positive(seconds: float) -> float:
    if seconds <= 0:
        raise ValueError("must be more than zero")
    return seconds


def _text(text: str) -> str:
    if not text.isprintable():
        raise ValueError("has a line break or another character that cannot be printed")
    return text


def _arch(text: str) -> str:
    known = (*ARCHITECTURES, ANY_ARCH)
    if text and text not in known:
        raise ValueError(f"must be one of {', '.join(known)}")
    return text


def _oom(text: str) -> str:
    if text not in ON_OOM:
        raise ValueError(f"must be one of {', '.join(ON_OOM)}")
    return text


def _python(text: str) -> str:
    return check_python(text, "python") if text else text


def _secret(value: object) -> object:
    return Secret(value) if isinstance(value, str) else value


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Duration = Annotated[float, BeforeValidator(_checked(_duration))]
#: A duration that must not be zero.
Period = Annotated[Duration, AfterValidator(_positive)]
#: US dollars; `Field` says so with `json_schema_extra`, by which it is told from a duration.
Money = Annotated[float, BeforeValidator(_checked(_money))]
DOLLARS: Any = {"unit": "usd"}
Size = Annotated[int, BeforeValidator(_checked(_size))]
Text = Annotated[str, AfterValidator(_text)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(_tuple)]
Hidden = Annotated[Secret, BeforeValidator(_secret)]
#: Path of a file; made absolute when settings are loaded, relative to the file that names it.
FilePath = Text


Arch = Annotated[Text, AfterValidator(_arch)]
Oom = Annotated[Text, AfterValidator(_oom)]
Python = Annotated[Text, AfterValidator(_checked(_python))]


class Section(BaseModel):
    """A table of the file. Unknown keys and values of another type are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True, hide_input_in_errors=True
    )


class VmSection(Section):
    """Times that decide how long a VM may live without a sign of life. They hold for every driver."""

    boot_grace: Period = Field(900.0, le=86400, description="How long a VM may take until its agent runs.")
    lease: Period = Field(1800.0, description="How long a VM lives after the last time its agent renewed the lease.")
    heartbeat: Period = Field(15.0, description="How often an agent gives a sign of life.")
    dead_after: Period = Field(120.0, description="After how long without one its tasks are given to others.")
    flush_grace: Period = Field(60.0, le=3600, description="How long an agent may save results when its VM ends.")
    deadman_poll: Period = Field(30.0, ge=0.01, description="How often the dead-man timer judges lease and deadline.")
    ssh_timeout: Period = Field(300.0, description="How long to try until SSH answers on a new VM.")


_AS_VM = "Unset: as in [vm]."


class DriverSection(Section):
    """A driver's own times; what is not set is taken from `[vm]`."""

    boot_grace: Period | None = Field(None, le=86400, description=_AS_VM)
    lease: Period | None = Field(None, description=_AS_VM)
    heartbeat: Period | None = Field(None, description=_AS_VM)
    dead_after: Period | None = Field(None, description=_AS_VM)
    flush_grace: Period | None = Field(None, le=3600, description=_AS_VM)
    deadman_poll: Period | None = Field(None, ge=0.01, description=_AS_VM)
    ssh_timeout: Period | None = Field(None, description=_AS_VM)
