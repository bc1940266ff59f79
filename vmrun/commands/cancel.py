"""`vmrun cancel`: end a job."""

from __future__ import annotations

import typer

from vmrun.rendering import documents

from .options import JobId, Json
from .session import session_of

EXAMPLES = (("vmrun cancel JOB", "its tasks are ended and its VM is given back"),)


def command(ctx: typer.Context, job: JobId, *, json: Json = False) -> int:
    """End JOB. Results that were committed stay. A job that had ended already stays as it is."""
    del json
    session = session_of(ctx)
    handle = session.client.handle(job)
    cancelled = handle.cancel()
    view = handle.status()
    if session.as_json:
        session.screen.document(documents.document(cancelled=cancelled, job=documents.job(view)))
    elif cancelled:
        session.screen.lines([f"job {view.id} is cancelled"])
    else:
        session.screen.lines([f"job {view.id} had ended already: {view.state.value}"])
    return 0
