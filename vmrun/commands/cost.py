"""`vmrun cost`: what was spent, by job, by day or by cloud."""

from __future__ import annotations

from typing import Annotated

import typer

from vmrun.core.errors import UsageError
from vmrun.core.units import parse_duration
from vmrun.rendering import documents
from vmrun.rendering.costs import costs_document, costs_notes, costs_table
from vmrun.watch.costs import By

from .options import Json
from .request import LONGEST_DURATION
from .session import session_of

EXAMPLES = (
    ("vmrun cost", "the last 30 days, by job; what VMs cost while they had none is a row of its own"),
    ("vmrun cost --since 7d --by day", "the last week, by day"),
    ("vmrun cost --by cloud --json", "for a program"),
)
SINCE = "30d"


def _completions(incomplete: str) -> list[str]:
    return [by.value for by in By if by.value.startswith(incomplete)]


def command(
    ctx: typer.Context,
    *,
    since: Annotated[str, typer.Option(metavar="TIME", help="How far to look back, as 12h or 30d.")] = SINCE,
    by: Annotated[
        str, typer.Option(metavar="WHAT", help="job, day (of UTC) or cloud.", autocompletion=_completions)
    ] = By.job.value,
    json: Json = False,
) -> int:
    """Add up what this deployment's VMs have cost: machines on demand and spot apart, disks, public addresses.

    Computed from the journals in the store and the prices of when each VM was rented, so it holds VMs that are gone,
    and those that other computers rented. List prices without tax, traffic, storage or discounts: the bill of the cloud
    has the last word.
    """
    del json
    session = session_of(ctx)
    seconds = parse_duration(since, "--since")
    if not 0 < seconds <= LONGEST_DURATION:
        raise UsageError(f"--since: {since!r} is no time to look back", hint="at most a year, such as 30d")
    if by not in [each.value for each in By]:
        raise UsageError(f"--by: {by[:40]!r}", hint=f"one of {', '.join(each.value for each in By)}")
    costs = session.client.costs(By(by), seconds)
    if session.as_json:
        session.screen.document(documents.document(**costs_document(costs)))
        return 0
    session.screen.lines(costs_table(costs, session.screen.style))
    session.screen.notes(costs_notes(costs))
    return 0
