"""`vmrun release`: give back a VM that is held, or kept warm."""

from __future__ import annotations

from typing import Annotated

import typer

from vmrun.rendering import documents

from .options import Json
from .session import session_of

EXAMPLES = (
    ("vmrun release JOB", "end the hold of the machine that JOB failed on"),
    ("vmrun release VM", "give back a machine that is held, or kept warm"),
)


def command(
    ctx: typer.Context,
    target: Annotated[
        str, typer.Argument(metavar="VM|JOB", help="Id of a VM, or a unique beginning of it; or a job, as elsewhere.")
    ],
    *,
    json: Json = False,
) -> int:
    """Give back now a VM that would stay: held after a failure (--keep-on-failure), or kept warm (--keep-warm).

    A VM that works is refused: end its job with `vmrun cancel`.
    """
    del json
    session = session_of(ctx)
    released = session.client.release(target, session.screen.note)
    if session.as_json:
        session.screen.document(documents.document(vm=released.vm, gone=released.gone))
    else:
        session.screen.lines([f"VM {released.vm} is {'gone' if released.gone else 'ending'}"])
    return 0
