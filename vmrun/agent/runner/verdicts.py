"""What is said of tasks that gave no outcome themselves: their process died, was killed for them, or never began."""

from __future__ import annotations

import signal
from array import array
from dataclasses import dataclass
from typing import Any

from vmrun.core.blocks import ResultBlock, Status, failure

from . import failures
from .slots import Doom

#: A task whose worker was killed from outside, by a SIGKILL that nobody here sent, is tried again this many times,
#: whatever the job's retries: the machine may have been short of memory because of its neighbours.
LOSSES_MAX = 2
CANCELLED = Doom(Status.cancelled, -1, 0.0, "the job was cancelled")


@dataclass(frozen=True, slots=True)
class Death:
    """How a worker process ended."""

    #: Exit code, or minus the signal.
    code: int
    peak_bytes: int
    #: The kernel ended some process for lack of memory meanwhile.
    out_of_memory: bool


def verdict(death: Death, last: str, *, began: bool = True, limit: int = 0) -> tuple[Status, bytes]:
    """Status and failure document for a process that ended; `last` is the end of what it wrote to stderr.

    `limit`: bytes that all tasks together may take, 0 if not known.
    """
    if not began:
        message = f"its worker ended {LOSSES_MAX + 1} times before the task began, the last time with {_ending(death)}"
        return Status.lost, failure(Status.lost, message, traceback=last)
    if death.code >= 0:
        return Status.exited, failures.by_exit_code(death.code)
    number = -death.code
    if number != signal.SIGKILL:
        return Status.signalled, failures.by_signal(number, last=last)
    if death.out_of_memory:
        return Status.oom, failures.by_system(death.peak_bytes, limit, last=last)
    peak = f"its memory peaked at {failures.size(death.peak_bytes)}"
    return Status.signalled, failures.by_signal(number, why=f" (out of memory, or from outside); {peak}", last=last)


def unreadable(last: str) -> tuple[Status, bytes]:
    """Status and failure document for a task whose process wrote to vmrun's own descriptors."""
    message = "what the task's process wrote to vmrun's own descriptors made its outcome unreadable"
    return Status.lost, failure(Status.lost, message, traceback=last)


def doomed(doom: Doom, limit: float | None, last: str = "") -> tuple[Status, bytes]:
    """Status and failure document for a task that its worker was killed for; `last` is as for `verdict`.

    `limit`: the job's time limit for a task in seconds, if it has one.
    """
    kind, message = doom.kind, doom.message
    if kind is Status.timeout:
        message = f"took longer than {limit or 0.0:g} seconds (the task timeout)"
    code = int(signal.SIGKILL) if kind in (Status.signalled, Status.oom) else None
    return kind, failure(kind, message, traceback=last, code=code)


def _ending(death: Death) -> str:
    return f"exit code {death.code}" if death.code >= 0 else failures.signal_name(-death.code)


def alike(first: int, count: int, status: Status, document: bytes, facts: dict[str, Any]) -> ResultBlock:
    """The block of `count` tasks that failed in the same way."""
    zeros = [0.0] * count
    return ResultBlock(
        first,
        bytes([status]) * count,
        array("Q", [len(document)]) * count,
        document * count,
        array("d", zeros),
        array("f", zeros),
        facts=facts,
    )
