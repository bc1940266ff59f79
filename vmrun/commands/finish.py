"""How a job's end is told: its values and files, or why it failed, and the exit code that says so."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from vmrun.core.errors import BudgetError, JobCancelled, VmrunError, failed_as_a_whole
from vmrun.core.model import JobState
from vmrun.core.units import format_duration
from vmrun.core.views import JobResults, JobView
from vmrun.render import Screen
from vmrun.rendering import documents, failures
from vmrun.rendering.text import count, money, safe_repr, visible

#: Values that are shown before the rest is left to `vmrun result`.
VALUES_SHOWN = 20
#: Characters of one value among many.
VALUE_LENGTH = 2000
#: Files that are named one by one.
FILES_SHOWN = 10


def default_directory(job: str) -> str:
    """Where a job's files go if nobody says otherwise: below the current directory."""
    return os.path.join("vmrun-output", job)


def error_of(view: JobView, results: JobResults | None) -> VmrunError | None:
    """The error that an ended job stands for; None for one that succeeded."""
    if view.state is JobState.cancelled:
        return JobCancelled(f"job {view.id} was cancelled", hint=f"`vmrun result {view.id}` has what had finished")
    unusable = view.state is JobState.done and results is not None and results.failures
    if view.state is JobState.failed or unusable:
        message, hint = failures.summary(view, results.failures if results is not None else ())
        return failed_as_a_whole(message, hint, view.error_code)
    return None


def held_lines(view: JobView) -> Iterator[str]:
    """That the machine stays for debugging, and how to get there; nothing if it does not."""
    if view.keep_on_failure and view.state is JobState.failed and view.error_code != BudgetError.code:
        yield f"Its machine stays for {format_duration(view.keep_on_failure)} at most, for debugging:"
        yield f"  log in      vmrun ssh {view.id}"
        yield f"  give back   vmrun release {view.id}"


def show_error(screen: Screen, view: JobView, results: JobResults | None, error: VmrunError) -> None:
    """The first failures with their tracebacks, then the error."""
    if results is not None:
        screen.notes(failures.details(view, results.failures))
    screen.error(error)


# --- values ---


def values_lines(view: JobView, results: JobResults, *, shown: int) -> Iterator[str]:
    """The reduced value, or the tasks' values one a line; of many values the first `shown` (0: all)."""
    if results.has_reduced:
        if results.reduced is not None:
            yield _whole(results.reduced)
        return
    # A script's or command's product is its output; tasks that all return None have nothing to show.
    if view.kind in ("script", "command") or all(value is None for value in results.values):
        return
    if len(results.values) == 1:
        yield _whole(results.values[0])
        return
    limit = shown or len(results.values)
    yield from (safe_repr(value, limit=VALUE_LENGTH if shown else 0) for value in results.values[:limit])


def _whole(value: Any) -> str:
    """One value on its own: a text as it is, anything else as Python would show it."""
    return value.rstrip("\n") if isinstance(value, str) else safe_repr(value)


def left_out(view: JobView, results: JobResults, *, shown: int) -> str:
    """What `values_lines` did not show, and how to get it; "" if it showed all."""
    more = len(results.values) - shown
    if results.has_reduced or not shown or more <= 0 or all(value is None for value in results.values):
        return ""
    return f"... and {count(more, 'more value')}: `vmrun result {view.id} -o results.pkl` saves all"


# --- files ---


def files_lines(files: Iterable[str]) -> Iterator[str]:
    """Where the files are."""
    paths = [visible(path) for path in files]
    if not paths:
        return
    if len(paths) <= FILES_SHOWN:
        yield from (f"wrote {path}" for path in paths)
        return
    folder = os.path.commonpath(paths)
    yield f"wrote {count(len(paths), 'file')} to {folder}{os.sep}"


# --- the end of an attached submit or a wait ---


def closing_line(view: JobView) -> str:
    """`done: 200 tasks in 1m 12s, $0.12`."""
    parts = [count(view.tasks.total, "task")]
    if view.ended and view.created:
        parts[0] += f" in {format_duration(max(view.ended - view.created, 0.0))}"
    if view.usd:
        parts.append(money(view.usd))
    return f"{view.state.value}: {', '.join(parts)}"


def ended(screen: Screen, view: JobView, results: JobResults | None) -> int:
    """Tell how the job ended; the exit code. With JSON: one document, the error beside the job."""
    error = error_of(view, results)
    if screen.as_json:
        fields: dict[str, Any] = {"job": documents.job(view)}
        if results is not None:
            told = documents.results(results)
            fields |= {key: told[key] for key in ("outputs", "errors", "reduced") if key in told}
        screen.document(documents.document(**fields) if error is None else documents.failure(error, **fields))
        return 0 if error is None else error.exit_code
    if results is not None:
        screen.notes(files_lines(results.files))
    if error is not None:
        show_error(screen, view, results, error)
        screen.notes(held_lines(view))
        return error.exit_code
    if results is not None:
        screen.lines(values_lines(view, results, shown=VALUES_SHOWN))
        if more := left_out(view, results, shown=VALUES_SHOWN):
            screen.note(more)
    screen.note(closing_line(view))
    return 0
