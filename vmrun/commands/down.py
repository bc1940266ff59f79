"""`vmrun down`: take a pool down."""

from __future__ import annotations

from typing import Annotated

import typer

from vmrun.core.pools import DEFAULT
from vmrun.core.units import parse_duration
from vmrun.rendering import documents
from vmrun.rendering import pools as rendered

from .options import Json
from .session import session_of
from .up import PoolName

EXAMPLES = (
    ("vmrun down", "the pool that has no name"),
    ("vmrun down team", "its VMs go, those that work when their job has ended"),
)
#: Seconds for which VMs are watched as they go.
PATIENCE = "2m"


def command(
    ctx: typer.Context,
    pool: PoolName = DEFAULT,
    *,
    patience: Annotated[
        str, typer.Option("--patience", metavar="TIME", help="Watch VMs that have no work go for this long at most.")
    ] = PATIENCE,
    json: Json = False,
) -> int:
    """Take POOL down: its VMs wait for no further job and end, those that work when their job has ended."""
    del json
    session = session_of(ctx)
    seconds = parse_duration(patience, "--patience")
    progress = session.screen.progress()
    try:
        view = session.client.pools.down(pool, progress.stage, seconds)
    finally:
        progress.close()
    if session.as_json:
        session.screen.document(documents.document(pool=documents.pool(view)))
    else:
        session.screen.lines([rendered.told(view, session.clock.now())])
    return 0
