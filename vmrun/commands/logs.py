"""`vmrun logs`: what a job's tasks wrote."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from vmrun.core.errors import UsageError
from vmrun.core.views import JobView, OutputChunk
from vmrun.render import Screen
from vmrun.rendering import documents
from vmrun.rendering.output import LinePrefixer, TextDecoder
from vmrun.rendering.text import count

from .options import JobId, Json
from .session import session_of
from .streamed import one_document

EXAMPLES = (
    ("vmrun logs JOB", "all output so far, each line with its task: `[17] text`"),
    ("vmrun logs -f JOB", "go on until the job has ended"),
    ("vmrun logs JOB --task 17", "one task's output, byte by byte"),
)


def command(
    ctx: typer.Context,
    job: JobId,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    task: Annotated[int | None, typer.Option(metavar="N", min=0, help="Only what task N wrote.")] = None,
    json: Json = False,
) -> int:
    """Show what JOB's tasks wrote, to stdout and stderr as they did. It is in the store, and outlives the VM.

    Lines of many tasks have the task's number before them, and from the second attempt on the attempt's; a script's,
    a program's and a single task's output is passed on byte by byte.

    With --json one document with all pieces; with --follow as well, one document per piece.
    """
    del json
    session = session_of(ctx)
    handle = session.client.handle(job)
    view = handle.status()
    _check_task(view, task)
    chunks = handle.logs(follow=follow, task=task)
    if session.as_json:
        (_follow_json if follow else _one_document)(session.screen, view, chunks)
    elif task is not None or view.kind in ("script", "command"):
        for chunk in chunks:
            session.screen.raw(chunk.stream, chunk.data)
    else:
        _prefixed(session.screen, chunks)
    return 0


def _check_task(view: JobView, task: int | None) -> None:
    if task is not None and view.kind != "open" and task >= view.tasks.total:
        raise UsageError(
            f"--task: job {view.id} has {count(view.tasks.total, 'task')}, and none has number {task}",
            hint=f"tasks are numbered from 0 to {view.tasks.total - 1}" if view.tasks.total else "",
        )


def _prefixed(screen: Screen, chunks: Iterator[OutputChunk]) -> None:
    prefixer = LinePrefixer()
    for chunk in chunks:
        if lines := prefixer.feed(chunk):
            screen.raw(chunk.stream, lines)
    for stream, line in prefixer.flush():
        screen.raw(stream, line)


def _follow_json(screen: Screen, view: JobView, chunks: Iterator[OutputChunk]) -> None:
    decoder = TextDecoder()
    for chunk in chunks:
        screen.document(documents.document(job=view.id, **documents.output(chunk, decoder.feed(chunk))))


def _one_document(screen: Screen, view: JobView, chunks: Iterator[OutputChunk]) -> None:
    decoder = TextDecoder()
    pieces = (documents.output(chunk, decoder.feed(chunk)) for chunk in chunks)
    one_document(screen, {"job": view.id}, "output", pieces)
