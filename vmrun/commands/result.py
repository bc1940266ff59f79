"""`vmrun result`: what a job gave."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from vmrun.core.errors import UsageError
from vmrun.core.views import JobResults, JobView
from vmrun.rendering import documents
from vmrun.rendering.text import visible

from . import finish
from .options import JobId, Json
from .session import Session, session_of

if TYPE_CHECKING:
    from vmrun.handle import JobHandle

EXAMPLES = (
    ("vmrun result JOB", "the values on stdout, the files below `vmrun-output/`"),
    ("vmrun result JOB -o values.pkl", "all values as one pickled list"),
    ("vmrun result JOB -o values.jsonl", "all values, one JSON text a line"),
    ("vmrun result JOB -o results/", "the files into a directory of your choice"),
)
#: Endings of files that results can be saved as.
SAVED_AS = (".pkl", ".jsonl")


class NotEnded(UsageError):
    """The job still runs; the same call will do once it has ended."""

    code = "not-ended"
    retryable = True


def command(
    ctx: typer.Context,
    job: JobId,
    *,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="PATH", help="FILE.pkl or FILE.jsonl for the values; else a directory."),
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Take what there is of a job that still runs.")] = False,
    json: Json = False,
) -> int:
    """Show the values that JOB gave, and bring its files home, below vmrun-output/ unless -o names a directory.

    Needs neither the VM nor the computer that submitted: all is in the store. Of a job that failed it tells why,
    shows the results of the other tasks all the same, and exits with 6.
    """
    del json
    session = session_of(ctx)
    to_file = _is_file(output)
    handle = session.client.handle(job)
    view = handle.status()
    if not view.state.ended and not partial:
        raise NotEnded(
            f"job {view.id} is still {view.state.value}",
            hint=f"`vmrun wait {view.id}` waits for it; --partial takes what there is",
        )
    if to_file and output is not None:
        return _save(session, handle, view, output)
    results = handle.collect(output or finish.default_directory(view.id))
    return _show_json(session, view, results) if session.as_json else _show(session, view, results)


def _is_file(output: str | None) -> bool:
    """Whether the values are to be saved to a file; UsageError for a path that can be neither that nor a directory."""
    if output is None:
        return False
    if not output or "\0" in output:
        raise UsageError(f"-o: {output[:200]!r} is not a path", hint="such as -o values.pkl, or -o results/")
    ending = os.path.splitext(output)[1]
    if os.path.isdir(output) or output.endswith("/"):
        return False
    if ending not in SAVED_AS:
        if ending or os.path.exists(output):
            raise UsageError(
                f"-o: {output[:200]!r} is neither a directory nor a .pkl or .jsonl file",
                hint="end the name of a new directory with a slash",
            )
        return False
    folder = os.path.dirname(output)
    if folder and not os.path.isdir(folder):
        raise UsageError(f"-o: there is no directory {folder[:200]!r}", hint=f"`mkdir -p {folder[:200]}` makes it")
    return True


def _save(session: Session, handle: JobHandle, view: JobView, path: str) -> int:
    handle.save(path)
    error = finish.error_of(view, None)
    if session.as_json:
        # As below: what was asked for was done.
        session.screen.document(documents.document(job=documents.job(view), saved=path))
    else:
        session.screen.note(f"saved the values to {visible(path)}")
        if error is not None:
            session.screen.error(error)
    return 0 if error is None else error.exit_code


def _show_json(session: Session, view: JobView, results: JobResults) -> int:
    error = finish.error_of(view, results)
    # What was asked for is here, the failures included; the exit code tells that there are some.
    session.screen.document(documents.document(job=documents.job(view), **documents.results(results)))
    return 0 if error is None else error.exit_code


def _show(session: Session, view: JobView, results: JobResults) -> int:
    screen, error = session.screen, finish.error_of(view, results)
    # A terminal is for reading; a pipe or a file gets everything.
    shown = finish.VALUES_SHOWN if screen.interactive else 0
    screen.notes(finish.files_lines(results.files))
    screen.lines(finish.values_lines(view, results, shown=shown))
    if more := finish.left_out(view, results, shown=shown):
        screen.note(more)
    if error is not None:
        finish.show_error(screen, view, results, error)
        return error.exit_code
    if view.kind in ("script", "command"):
        screen.note(f"its output: `vmrun logs {view.id}`")
    return 0
