"""`vmrun reap`: one pass of the reaper."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from vmrun.core.errors import UsageError
from vmrun.core.views import Verdict
from vmrun.rendering import documents, tables

from .options import Json
from .session import Session, session_of

EXAMPLES = (
    ("vmrun reap --dry-run", "what would be deleted, and why"),
    ("vmrun reap", "delete what is idle, expired or orphaned"),
    ("vmrun reap --all", "delete every VM of this deployment"),
)


def command(
    ctx: typer.Context,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Judge, and delete nothing.")] = False,
    all_: Annotated[bool, typer.Option("--all", help="Delete every VM of this deployment; asks first.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> int:
    """Judge every VM of this deployment, and delete those that nobody needs any more.

    VMs that work, and those that were asked to stay warm, are kept. Prints the verdict on each VM, and its reason.
    """
    del json
    session = session_of(ctx)
    if all_ and not dry_run and not yes and not _confirmed(session):
        session.screen.note("nothing was deleted")
        return 0
    verdicts = session.client.reap(dry_run=dry_run, all_=all_)
    if session.as_json:
        session.screen.document(documents.document(verdicts=documents.verdicts(verdicts), dry_run=dry_run))
    else:
        session.screen.lines(tables.verdicts(verdicts, session.screen.style, dry_run=dry_run))
    return 0


def _confirmed(session: Session) -> bool:
    """Whether the person at the terminal wants all these VMs deleted; nobody there is a usage error."""
    if session.as_json or sys.stdin is None or not sys.stdin.isatty():
        raise UsageError(
            "--all deletes VMs that still work", hint="say --yes, or look first: `vmrun reap --all --dry-run`"
        )
    doomed: list[Verdict] = session.client.reap(dry_run=True, all_=True)
    session.screen.notes(tables.verdicts(doomed, session.screen.err_style, dry_run=True))
    if not any(verdict.delete for verdict in doomed):
        return True
    return session.screen.ask("Delete them, and end the jobs on them?")
