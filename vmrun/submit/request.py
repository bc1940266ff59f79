"""What one submit asks for: the same record for the command line and the Python API."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class SubmitRequest:
    """One submission as the user wrote it; None means "not said", so that the script's own header may say it."""

    #: `job.py`, `job.py::name`, a callable, or "" for a native command.
    target: str | Callable[..., Any] = ""
    #: The command (native), or the script's arguments.
    argv: tuple[str, ...] = ()
    #: Inputs of a callable, one task each; None: one call without argument.
    over: Iterable[Any] | None = None
    #: Reduce of a callable.
    reducer: Callable[..., Any] | None = None
    #: What the tasks can read by `vmrun.shared()`: an object, or the path of a file; at most one of them.
    shared: Any = None
    shared_file: str | None = None
    #: `local`, `docker`, …; None: the configuration's default.
    on: str | None = None
    cpus: int | None = None
    #: Bytes, or `job.AUTO_MEMORY`.
    memory: int | None = None
    disk: int | None = None
    arch: str | None = None
    instance_type: str | None = None
    region: str | None = None
    zone: str | None = None
    #: `on-demand`, `spot`, or `spot-with-fallback`.
    market: str | None = None
    vms: int | None = None
    replace_lost: int | None = None
    workers: int | None = None
    threads_per_task: int | None = None
    #: Bytes.
    task_memory: int | None = None
    fresh: bool | None = None
    retries: int | None = None
    #: Seconds.
    task_timeout: float | None = None
    max_lifetime: float | None = None
    keep_warm: float | None = None
    keep_on_failure: float | None = None
    #: Dollars.
    max_cost: float | None = None
    allow_unknown_price: bool | None = None
    #: `fail`, or `grow`.
    on_oom: str | None = None
    python: str | None = None
    name: str | None = None
    idempotency_key: str | None = None
    #: Requirements, as in PEP 508.
    with_packages: tuple[str, ...] = ()
    #: A requirements file, or None.
    requirements: str | None = None
    env: dict[str, str] = field(default_factory=dict)
