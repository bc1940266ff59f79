"""The keys of the configuration: their types, limits, defaults and meaning, one class per table of the file.

Durations are seconds, sizes are bytes; both are written the way people write them. The only module of the settings
that needs pydantic, so it is imported when settings are loaded and not before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from vmrun.core.errors import UsageError
from vmrun.core.secret import Secret
from vmrun.core.units import parse_duration, parse_size
from vmrun.job import ARCHITECTURES, check_python

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


def _positive(seconds: float) -> float:
    if seconds <= 0:
        raise ValueError("must be more than zero")
    return seconds


def _text(text: str) -> str:
    if not text.isprintable():
        raise ValueError("has a line break or another character that cannot be printed")
    return text


def _arch(text: str) -> str:
    if text and text not in ARCHITECTURES:
        raise ValueError(f"must be one of {', '.join(ARCHITECTURES)}")
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
Size = Annotated[int, BeforeValidator(_checked(_size))]
Text = Annotated[str, AfterValidator(_text)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(_tuple)]
Hidden = Annotated[Secret, BeforeValidator(_secret)]
#: Path of a file; made absolute when settings are loaded, relative to the file that names it.
FilePath = Text


class Section(BaseModel):
    """A table of the file. Unknown keys and values of another type are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True, hide_input_in_errors=True
    )


class Defaults(Section):
    """What `vmrun submit` and `@vmrun.job` ask for where they do not say otherwise."""

    on: Text = Field("local", min_length=1, description="Where jobs run: local or docker.")
    cpus: int = Field(0, ge=0, le=100_000, description="vCPUs that a machine must have; 0: any number.")
    memory: Size = Field(0, description="Memory that must be usable, such as 64GB; 0: any.")
    disk: Size = Field(0, description="Disk for the machine, such as 200GB; 0: the driver's default.")
    arch: Annotated[Text, AfterValidator(_arch)] = Field(
        "", description='Processor architecture, "x86_64" or "arm64"; "": any.'
    )
    workers: int = Field(0, ge=0, le=100_000, description="Worker processes per machine; 0: one per core.")
    threads_per_task: int = Field(
        0, ge=0, le=100_000, description="Cores for each task; 0: one, or more if there are fewer workers than cores."
    )
    task_memory: Size = Field(0, description="The most memory that one task takes, such as 8GB; 0: not said.")
    fresh: bool = Field(default=False, description="Whether each task gets a new process.")
    retries: int = Field(0, ge=0, le=100, description="Further attempts at a task that failed.")
    task_timeout: Duration = Field(0.0, description="Longest time for one attempt at a task; 0s: no limit.")
    max_lifetime: Period = Field(86400.0, description="Hard limit to a machine's life; nothing extends it.")
    keep_warm: Duration = Field(0.0, description="How long a machine waits for the next job before it is given back.")
    python: Annotated[Text, AfterValidator(_checked(_python))] = Field(
        "", description='Python version of jobs, such as "3.12"; "": the one that submits.'
    )


class StoreSection(Section):
    """Object storage: the one place where jobs, results and output are kept."""

    url: Text = Field(
        "",
        description='file:///path, a path, or s3://bucket/prefix; "": a directory under the user\'s data directory.',
    )
    endpoint: Text = Field("", description="Address of an S3-compatible server, such as https://minio.example:9000.")
    region: Text = Field("", description="Region of the bucket.")
    access_key_id: Hidden = Field(Secret(""), description='Access key; "": from the environment or the instance.')
    secret_access_key: Hidden = Field(Secret(""), description="Secret that belongs to the access key.")
    session_token: Hidden = Field(Secret(""), description="Session token of temporary credentials.")
    ca_file: FilePath = Field("", description="PEM file with the authorities to trust instead of the system's.")
    fsync: bool = Field(default=True, description="Whether a directory store survives a power cut; false is faster.")


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


class LocalSection(DriverSection):
    """Machines that are processes on this one. They may be watched closely, as that costs nothing."""

    boot_grace: Period | None = Field(60.0, le=86400, description="As in [vm].")
    lease: Period | None = Field(120.0, description="As in [vm].")
    heartbeat: Period | None = Field(1.0, description="As in [vm].")
    deadman_poll: Period | None = Field(1.0, ge=0.01, le=5, description="As in [vm], at most 5s.")


class DockerSection(DriverSection):
    """Machines that are containers on this one, booted like VMs."""

    image: Text = Field("", description='Image to boot; "": the one that `vmrun init docker` builds.')
    cpus: int = Field(0, ge=0, le=100_000, description="vCPUs of each container; 0: all of this machine's.")
    memory: Size = Field(0, description="Memory of each container, such as 4GB; 0: all of this machine's.")
    store_endpoint: Text = Field("", description='Address of the store as containers see it; "": the one in [store].')
    boot_grace: Period | None = Field(300.0, le=86400, description="As in [vm].")


class EnvironmentSection(Section):
    """Where the packages of jobs come from."""

    index_url: Text = Field("", repr=False, description='Package index; "": the one of the environment, or PyPI.')
    extra_index_urls: Texts = Field((), repr=False, description="Further indexes.")
    ca_file: FilePath = Field("", description="PEM file with the authorities to trust for package downloads.")


#: The tables of the file, in the order in which they are documented.
SECTIONS: dict[str, type[Section]] = {
    "defaults": Defaults,
    "store": StoreSection,
    "vm": VmSection,
    "local": LocalSection,
    "docker": DockerSection,
    "environment": EnvironmentSection,
}
#: Keys whose value is the path of a file.
FILE_PATHS = (("store", "ca_file"), ("environment", "ca_file"))
