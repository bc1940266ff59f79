"""A job's results on the client: read in order, checked, and only then unpickled."""

from __future__ import annotations

import base64
import pickle
import traceback
from collections.abc import Iterator
from typing import Any

from vmrun.core.blocks import PYTHON, Status, read_failure
from vmrun.core.errors import JobFailed, UsageError, VmrunError
from vmrun.core.folds import Extent
from vmrun.core.ledger import Desk, JobLedger
from vmrun.core.model import ShardPlan
from vmrun.core.outcomes import Outcome, OutcomeReader, alone, in_order, of_block
from vmrun.core.records import FileRef
from vmrun.core.views import TaskFailure


class RemoteTraceback(Exception):
    """The traceback of the exception on the VM, as text: the `__cause__` of what is raised here."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


class TaskError(JobFailed):
    """A task that failed without an exception that could be brought home."""

    code = "task-failed"


class CannotOpen(TaskError):
    """A result that arrived whole, and whose own code refuses to be unpickled here."""

    code = "task-result"


class ResultReader:
    """Reads the settled outcomes of one job, from the first task to the last, in bounded memory."""

    def __init__(self, desk: Desk, job: str) -> None:
        self._desk = desk
        self.job = job
        self._ledger = JobLedger(desk, job)

    def refresh(self) -> JobLedger:
        """The job's journal, read to its end. Raises UsageError when there is no such job."""
        if self._ledger.refresh().submit is None:
            raise UsageError(f"there is no job {self.job} in this store", hint="`vmrun status` lists the jobs")
        return self._ledger

    def outcomes(self, *, reduce: bool = False) -> Iterator[Outcome]:
        """Settled outcomes in order: of the tasks, or of the reduce alone. Gaps are tasks without an outcome yet."""
        for reader, extent in self._extents(reduce=reduce):
            yield from reader.outcomes(extent)

    def values(self) -> Iterator[Any]:
        """The tasks' values in order. Where there is none: raises what the task raised, or TaskError, or CannotOpen."""
        for reader, extent in self._extents(reduce=False):
            if alone(extent.block):
                yield from map(value_of, reader.outcomes(extent))
                continue
            block = reader.settled(extent)
            plain = block.plain()
            if plain is not None:
                yield from plain
            else:
                yield from map(value_of, of_block(block))

    def _extents(self, *, reduce: bool) -> Iterator[tuple[OutcomeReader, Extent]]:
        for plan in self.refresh().fold.shards():
            if plan.reduce == reduce:
                yield from self._shard(plan)

    def _shard(self, plan: ShardPlan) -> Iterator[tuple[OutcomeReader, Extent]]:
        ledger = self._ledger.shard(plan)
        ledger.catch_up()
        reader = OutcomeReader(self._desk.store, self.job, ledger.prefix)
        for extent in in_order(ledger.fold):
            yield reader, extent

    def files(self) -> list[FileRef]:
        """Files that tasks wrote, in order of tasks."""
        found: list[FileRef] = []
        for plan in self.refresh().fold.shards():
            found.extend(self._ledger.shard(plan).catch_up().files)
        return sorted(found, key=lambda file: (file.task, file.path))


def value_of(outcome: Outcome) -> Any:
    """The value that the task returned. Raises what it raised (the remote traceback as `__cause__`), or TaskError.

    Of a value that cannot be had here, CannotOpen is raised, or UsageError when that can be changed.
    """
    if outcome.status is not Status.ok:
        raise exception_of(outcome)
    if outcome.python != PYTHON:
        raise UsageError(
            f"task {outcome.task} was run by Python {outcome.python}; opening its result with {PYTHON} could crash",
            hint=f"read the results with Python {outcome.python}",
        )
    parcel = outcome.parcel
    try:
        # Not by a method of the parcel: `unopened` leaves out this one frame.
        return pickle.loads(outcome.payload) if parcel is None else pickle.loads(parcel.pickle, buffers=parcel.buffers)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the result of task {outcome.task} needs the module {error.name!r}, which is not installed here",
            hint=f"install it, for instance with `pip install {error.name}`",
        ) from error
    except (Exception, SystemExit) as error:  # the result's own code runs here, and may raise anything
        raise CannotOpen(
            f"the result of task {outcome.task} cannot be opened here: {_said(error)}", hint=HINTS["unpicklable"]
        ) from error


def unopened(outcome: Outcome, error: CannotOpen) -> TaskFailure:
    """A task whose result cannot be opened, as a failure of that task alone."""
    cause = error.__cause__
    assert cause is not None
    # Without the frame of this module, which only called it.
    own = cause.__traceback__
    text = "".join(traceback.format_exception(cause.with_traceback(own.tb_next if own is not None else None)))
    return TaskFailure(outcome.task, "unpicklable", type(cause).__name__, f"here it raises {_said(cause)}", text, None)


def _said(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - the user's own __str__
        text = ""
    return f"{type(error).__name__}: {text[:1000]}" if text else type(error).__name__


def failure_of(outcome: Outcome) -> TaskFailure:
    """What is known of a failed task, without running any of its code."""
    document = read_failure(outcome.payload)
    code = document.get("code")
    return TaskFailure(
        outcome.task,
        str(document.get("kind", outcome.status.name)),
        str(document.get("type", "")),
        str(document.get("message", "")),
        str(document.get("traceback", "")),
        code if isinstance(code, int) else None,
    )


def exception_of(outcome: Outcome) -> BaseException:
    """The exception to raise here for a failed task."""
    document = read_failure(outcome.payload)
    failure = failure_of(outcome)
    raised = _unpickle(document.get("exception"), outcome.python)
    if raised is None:
        where = f"task {failure.task}: " if failure.task >= 0 else ""
        name = f"{failure.type}: " if failure.type else ""
        raised = TaskError(f"{where}{failure.kind}: {name}{failure.message}", hint=HINTS.get(failure.kind, ""))
    if failure.traceback:
        raised.__cause__ = RemoteTraceback(failure.traceback)
    return raised


#: What to do next, by kind of failure.
HINTS = {
    "timeout": "raise --task-timeout, or make the tasks smaller",
    "oom": "raise --task-memory, so that fewer run at once and each may take more, or ask for more --memory",
    "unpicklable": "return plain data, or objects that pickle can carry",
    "signalled": "a crash in native code, or a kill: the task's output may tell more (`vmrun logs`)",
}


def _unpickle(text: object, python: str) -> BaseException | None:
    if not isinstance(text, str) or not text or python != PYTHON:
        return None
    try:
        found = pickle.loads(base64.b64decode(text))
    except (Exception, SystemExit):  # noqa: BLE001 - a user's class may raise anything here; its text is shown instead
        return None
    return found if isinstance(found, BaseException) and not isinstance(found, VmrunError) else None
