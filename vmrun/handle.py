"""`JobHandle`: one submitted job, from whatever process, for as long as the store keeps it."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .core.blocks import Status
from .core.errors import CapacityError, JobCancelled, UsageError, VmrunError, failed_as_a_whole
from .core.ledger import JobLedger
from .core.model import JobState
from .core.outcomes import Outcome
from .core.records import FileRef
from .core.task_views import JobStats, TaskRecord
from .core.units import format_duration
from .core.views import JobResults, JobView, OutputChunk, Snapshot, TaskFailure
from .fleet.lookout import Lookout, may_pass
from .fleet.retire import WATCH
from .watch.files import bring_home
from .watch.logs import OutputReader
from .watch.observe import JobObserver
from .watch.results import CannotOpen, ResultReader, exception_of, failure_of, unopened, value_of
from .watch.stats import read_stats
from .watch.tasks import TaskReader
from .watch.timeline import Timeline, read_timeline

if TYPE_CHECKING:
    from .client import Client

#: Seconds between looks of a watcher: at least, and at most where the store does not ask for more.
SHORTEST, LONGEST = 0.01, 0.2
#: Shares of the time watched by which it may be late: as long as that is under so many seconds, and beyond.
DELAY, PRESENT, CALM = 0.05, 0.1, 0.01


class JobHandle:
    """A job. All methods read the store anew; none needs the VM or the process that submitted."""

    def __init__(self, client: Client, job: str) -> None:
        self.id = job
        self._client = client
        self._desk = client.desk
        self._clock = client.desk.clock
        self._observer = JobObserver(client.desk, job)

    def __repr__(self) -> str:
        return f"JobHandle({self.id!r})"

    def expect(self, vm: str) -> None:
        """Show this VM with the job even before it claimed any of its work; "" for none."""
        self._observer.expected |= {vm} - {""}

    def status(self) -> JobView:
        """The job now. Raises UsageError when the store has no such job."""
        return self._observer.look()

    def watch(self, *, output: bool = True) -> Iterator[Snapshot]:
        """Snapshots until the job has ended, the last one included; with `output`, what the tasks wrote comes along.

        Between two looks it sleeps: milliseconds for a directory store, up to a second or so for a remote one. After
        the last snapshot the machine that this client brought up is given back, unless it is to stay warm.
        """
        reader = OutputReader(self._desk.store, self.id)
        shortest, longest = self._client.polls()
        shortest, longest = max(shortest, SHORTEST), max(longest, LONGEST)
        pause, before = shortest, None
        began, lookout = self._clock.monotonic(), Lookout(self._clock)
        while True:
            view = self.status()
            served = view.state is not JobState.pending
            if lookout.due(self._observer.ledger.fold.spec, lost=view.stranded, served=served):
                if view.stranded:
                    yield Snapshot(view, _getting(view), tuple(reader.read_some()) if output else ())
                if said := self._see_to(lookout):
                    yield Snapshot(view, said, (), (said,))
                view = self.status()
            chunks = tuple(reader.read_some()) if output else ()
            yield Snapshot(view, waiting_for(view), chunks, tuple(self._client.fleets.news(self.id)))
            if view.state.ended and not chunks:
                self._client.settle(self.id)
                return
            moved = chunks or before is None or (view.state, view.tasks) != (before.state, before.tasks)
            # The end of a short job is seen at once; a long job's watcher must not take part of a core from it.
            calm = max(shortest, patience(self._clock.monotonic() - began))
            pause = shortest if moved else min(longest, calm, pause * 1.5)
            before = view
            self._clock.sleep(pause)

    def _see_to(self, lookout: Lookout) -> str:
        """See to the job's machines; if another one is wanted and not to be had now, what to tell about it.

        Raises what getting one raises, CapacityError only when it was searched for long enough, or no search would
        help. A job for which no larger one is to be had ends by that, and nothing is raised.
        """
        try:
            self._client.see_to(self.id, self._observer)
        except VmrunError as error:
            view = self.status()
            # That there is none, or that none may be paid for, is in its journal.
            if view.state.ended:
                return ""
            if not isinstance(error, CapacityError) or not may_pass(error):
                raise
            # A search takes minutes: another client has got it a machine meanwhile.
            if view.state is not JobState.pending and not view.stranded:
                return ""
            if lookout.again.missed():
                return f"{_missed(view, error)}; searching again in {format_duration(lookout.again.seconds)}"
            if view.lost or not self._client.give_up(self.id, error):
                raise
        finally:
            lookout.looked()
        return ""

    def wait(self, timeout: float | None = None) -> JobView:
        """Wait until the job has ended. Raises TimeoutError after `timeout` seconds.

        A job whose machine was lost before it began, or that never got one, is given one.
        """
        view = self._until_ended(timeout)
        self._client.settle(self.id)
        return view

    def _until_ended(self, timeout: float | None = None) -> JobView:
        """The job as it ended; what this client brought up for it is not given back yet."""
        deadline = None if timeout is None else self._clock.monotonic() + timeout
        # One that lost or outgrew its own is seen to by the watch, at once.
        if not self.status().stranded:
            self._client.revive(self.id, self._observer)
        for snapshot in self.watch(output=False):
            if snapshot.job.state.ended:
                return snapshot.job
            if deadline is not None and self._clock.monotonic() >= deadline:
                raise TimeoutError(f"job {self.id} is still {snapshot.job.state.value}")
        raise AssertionError("a watch ends with an ended job")

    def results(self) -> Iterator[Any]:
        """The tasks' values in order, in bounded memory. Waits for the job; its machine is given back after them.

        A failed task raises its own exception, with the traceback from the VM as `__cause__`, or TaskError. A job
        that failed as a whole raises JobFailed, or BudgetError if its money was spent, a cancelled one JobCancelled.
        """
        view, watch = self._until_ended(), WATCH
        try:
            self._raise_if_unfinished(view)
            yield from ResultReader(self._desk, self.id).values()
        except GeneratorExit:
            # Whoever wants no more values does not wait until it is seen to be gone.
            watch = 0.0
            raise
        finally:
            self._client.settle(self.id, watch)

    def result(self) -> Any:
        """The reduced value; without a reduce, the only task's value, or the list of all. Waits for the job."""
        view = self.wait()
        self._raise_if_unfinished(view)
        reader = ResultReader(self._desk, self.id)
        if view.reduce:
            for outcome in reader.outcomes():
                if outcome.status is not Status.ok:
                    raise exception_of(outcome)
            for outcome in reader.outcomes(reduce=True):
                return value_of(outcome)
        values = list(reader.values())
        return values[0] if view.tasks.total == 1 else values

    def _raise_if_unfinished(self, view: JobView) -> None:
        if view.state is JobState.cancelled:
            raise JobCancelled(f"job {self.id} was cancelled", hint="what had finished: `vmrun result --partial`")
        if view.error:
            raise failed_as_a_whole(view.error, view.hint, view.error_code)

    def collect(self, directory: str | None = None) -> JobResults:
        """All values and failures that there are, and the files the tasks wrote, brought to `directory` (if given)."""
        reader = ResultReader(self._desk, self.id)
        spec = reader.refresh().fold.spec
        values: list[Any] = []
        failures: list[TaskFailure] = []
        for outcome in reader.outcomes():
            values += [None] * (outcome.task + 1 - len(values))
            opened = _open(outcome, failures)
            if opened is not None:
                (values[outcome.task],) = opened
        # Only now: an executor's job has more tasks by and by.
        values += [None] * (reader.refresh().fold.tasks - len(values))
        reduced, has_reduced = None, False
        if spec.reduce:
            for outcome in reader.outcomes(reduce=True):
                opened = _open(outcome, failures)
                if opened is not None:
                    (reduced,), has_reduced = opened, True
        files = tuple(bring_home(self._client.blobs, self.id, reader.files(), directory)) if directory else ()
        return JobResults(values, failures, reduced, has_reduced, files)

    def files(self) -> list[FileRef]:
        """The files that the tasks wrote under `$VMRUN_OUTPUT`."""
        return ResultReader(self._desk, self.id).files()

    def failures(self) -> Iterator[TaskFailure]:
        """Tasks that failed for good, in order; nothing of theirs is unpickled."""
        reader = ResultReader(self._desk, self.id)
        for reduce in (False, True):
            for outcome in reader.outcomes(reduce=reduce):
                if outcome.status is not Status.ok:
                    yield failure_of(outcome)

    def tasks(self) -> Iterator[TaskRecord]:
        """The record of each task that has ended, in the order in which their outcomes were committed.

        In bounded memory; of large results only what was measured is fetched. Needs nothing but the store.
        """
        return self.task_reader().records()

    def task_reader(self) -> TaskReader:
        """Reads the records, and adds them up on the way."""
        return TaskReader(self._desk, self.id)

    def stats(self) -> JobStats:
        """What the tasks that have ended took together: percentiles, CPU time, use of the cores, each worker's part."""
        return read_stats(self._desk, self.status())

    def timeline(self) -> Timeline:
        """When each task that has ended ran, where, and how it ended: what `vmrun plot` draws."""
        return read_timeline(self._desk, self.status())

    def save(self, path: str) -> None:
        """Write the values to a file: `.pkl` is one pickled list, `.jsonl` one JSON text a line.

        Appears whole or not at all. Raises UsageError for another ending, or a value that JSON cannot carry.
        """
        kind = Path(path).suffix
        if kind not in (".pkl", ".jsonl"):
            raise UsageError(f"{path!r}: results are saved as .pkl or .jsonl", hint="name the file results.pkl")
        temporary = Path(f"{path}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                if kind == ".pkl":
                    pickle.dump(list(self._values_or_none()), file, protocol=5)
                else:
                    for task, value in enumerate(self._values_or_none()):
                        file.write(_json_line(task, value))
            temporary.replace(path)
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror or error}", hint="name a file that can be written") from error
        finally:
            temporary.unlink(missing_ok=True)

    def _values_or_none(self) -> Iterator[Any]:
        expected = 0
        for outcome in ResultReader(self._desk, self.id).outcomes():
            for _ in range(expected, outcome.task):
                yield None
            expected = outcome.task + 1
            yield value_of(outcome) if outcome.status is Status.ok else None

    def logs(self, *, follow: bool = False, task: int | None = None) -> Iterator[OutputChunk]:
        """What the tasks wrote, so far, or with `follow` until the job has ended."""
        if not follow:
            self.status()
            chunks: Iterator[OutputChunk] = OutputReader(self._desk.store, self.id).read()
        else:
            chunks = (chunk for snapshot in self.watch() for chunk in snapshot.output)
        return (chunk for chunk in chunks if task is None or chunk.task == task)

    def cancel(self) -> bool:
        """Ask for the end; False if the job had ended already."""
        ledger = JobLedger(self._desk, self.id)
        if ledger.refresh().submit is None:
            raise UsageError(f"there is no job {self.id} in this store", hint="`vmrun status` lists the jobs")
        if not ledger.cancel("user"):
            return False
        self._client.settle_cancelled(self.id)
        return True


def _open(outcome: Outcome, failures: list[TaskFailure]) -> tuple[Any] | None:
    """The value of an outcome; None, and an entry in `failures`, where there is none."""
    if outcome.status is not Status.ok:
        failures.append(failure_of(outcome))
        return None
    try:
        return (value_of(outcome),)
    except CannotOpen as error:
        failures.append(unopened(outcome, error))
        return None


def patience(watched: float) -> float:
    """Seconds by which the end of a job may be seen late that was watched for `watched` seconds."""
    return max(min(DELAY * watched, PRESENT), CALM * watched)


def _getting(view: JobView) -> str:
    """What is done right now for a job that is stranded."""
    return "getting another machine: the one it had is lost" if view.lost else "getting a larger machine"


def _missed(view: JobView, error: CapacityError) -> str:
    """That a search found no machine."""
    return f"no larger machine is to be had just now: {error.message}" if view.wants_larger else error.message


def waiting_for(view: JobView) -> str:
    """What is done for a job just now, or waited for, in a few words."""
    doing = next((vm.doing for vm in view.vms if vm.doing and vm.job == view.id), "")
    if view.state.ended:
        return ""
    if doing:
        return doing
    if view.wants_larger:
        return "waiting for a larger machine"
    if view.lost:
        return f"its machine is lost; `vmrun wait {view.id}` gets it another one"
    if view.state is JobState.running:
        return "waiting for the machine to begin" if not view.tasks.done else "running"
    return "waiting for a machine" if view.state is JobState.pending else "getting the machine ready"


def _json_line(task: int, value: Any) -> bytes:
    try:
        return json.dumps(value).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise UsageError(f"the result of task {task} is not JSON: {error}", hint="save as .pkl instead") from error
