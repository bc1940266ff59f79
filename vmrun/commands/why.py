"""`vmrun why`: the life of a VM."""

from __future__ import annotations

from typing import Annotated

import typer

from vmrun.rendering import life as rendering

from .options import Json
from .session import session_of

EXAMPLES = (
    ("vmrun why VM", "what happened to it, who did it, and why"),
    ("vmrun why VM --json", "the same for a program, every field of every entry"),
)


def command(
    ctx: typer.Context,
    vm: Annotated[str, typer.Argument(metavar="VM", help="Id of the VM, its beginning, or the instance's name.")],
    *,
    json: Json = False,
) -> int:
    """Tell the life of a VM from its journal: each entry with its time, who made it and why.

    Then its last sign of life, and for one that has not ended what will end it, and when. The journal outlives the VM:
    it tells of those that are gone as well.
    """
    del json
    session = session_of(ctx)
    life = session.client.life(vm)
    if session.as_json:
        session.screen.document(rendering.document(life))
    else:
        session.screen.lines(rendering.lines(life, session.clock.now(), session.screen.style))
    return 0
