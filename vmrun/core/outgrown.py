"""The entry of a job's journal by which a VM says that it is too small."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .record import Record


@dataclass(frozen=True, slots=True)
class Outgrown(Record):
    """The VM is too small for a task of the job: it does no more of it, and no VM of its size or less is to."""

    TYPE: ClassVar[str] = "OUTGROWN"
    vm: str
    #: Bytes of memory that the VM was rented with, and the workers that shared it.
    memory: int
    workers: int
    task: int
    #: Bytes: the most that the task's process had, 0 if not known; and what it could not go beyond.
    peak: int
    limit: int
    #: How the task ended, as for one that failed.
    message: str
    #: Seconds since the epoch, on the VM's clock, when it took up the job.
    since: float
