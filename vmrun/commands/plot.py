"""`vmrun plot`: pictures of how a job went."""

from __future__ import annotations

from typing import Annotated

import typer

from vmrun.core.errors import UsageError
from vmrun.rendering import documents, figures

from .options import JobId, Json
from .session import session_of

EXAMPLES = (
    ("vmrun plot JOB", "timeline and histogram, as vmrun-JOB.png"),
    ("vmrun plot JOB -o job.svg --kind timeline", "one of them, for a text or a web page"),
)


def command(
    ctx: typer.Context,
    job: JobId,
    *,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="FILE.png, FILE.svg or FILE.pdf. [default: vmrun-JOB.png]"),
    ] = None,
    kind: Annotated[str, typer.Option(metavar="KIND", help="timeline, histogram or both.")] = "both",
    json: Json = False,
) -> int:
    """Draw how JOB went: what each worker did when, and how long tasks took. Prints the picture's path.

    A bar is a task, its colour says how it ended; of very many tasks, the shade says how busy a worker was. Works while
    the job runs, too, and after its VM is gone. Needs matplotlib: pip install 'vmrun[plot]'.
    """
    del json
    session = session_of(ctx)
    if kind not in figures.KINDS:
        raise UsageError(f"--kind: there is no plot {kind[:80]!r}", hint=f"one of {', '.join(figures.KINDS)}")
    if output is not None:
        figures.check_path(output)
    handle = session.client.handle(job)
    path = output or f"vmrun-{handle.id}.png"
    figures.draw(handle.status(), handle.timeline(), kind, path)
    if session.as_json:
        session.screen.document(documents.document(plot=path))
    else:
        session.screen.lines([path])
    return 0
