"""`vmrun reap`: one pass of the reaper, or one after the other, or what starts them by themselves."""

from __future__ import annotations

import sys
from pathlib import Path
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
    ("vmrun reap --every 60s", "again and again, until Ctrl-C or SIGTERM"),
    ("vmrun reap --every 60s --health-file reaper.json --json", "as a service that is watched"),
    ("vmrun reap --install systemd --write", "write a unit that runs it in the background"),
    ("vmrun reap --all", "delete every VM of this deployment"),
)


def command(  # noqa: PLR0913 -- one parameter per option is how typer is told of them
    ctx: typer.Context,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Judge, and delete nothing.")] = False,
    all_: Annotated[bool, typer.Option("--all", help="Delete every VM of this deployment; asks first.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    every: Annotated[
        str | None, typer.Option(metavar="TIME", help="Stay, and pass again after this time, as 60s.")
    ] = None,
    lasting: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help="With --every: end after this time, as 5m.")
    ] = None,
    health_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --every: keep in FILE when the last pass was, and how.")
    ] = None,
    install: Annotated[
        str | None,
        typer.Option(metavar="systemd|cron|github", help="Print what starts the reaper by itself."),
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="With --install: put it where it takes effect.")] = False,
    json: Json = False,
) -> int:
    """Judge every VM of this deployment, and delete those that nobody needs any more.

    VMs that work, and those that were asked to stay warm, are kept. Prints the verdict on each VM, and its reason.

    A VM that gives no sign of life is taken for dead only by a reaper that has watched it for some minutes. --every
    does; it prints a line for each pass and for each verdict that changed, or with --json a document for each pass.
    """
    del json
    session = session_of(ctx)
    given = {"every": every, "lasting": lasting, "health_file": health_file, "write": write, "dry_run": dry_run}
    _check(all_=all_, install=install, **given)
    if install is not None:
        from . import reap_install

        return reap_install.run(session, install, every or "60s", write=write, overwrite=yes)
    if every is not None:
        from . import reap_service

        return reap_service.run(session, every, lasting, health_file, dry_run=dry_run)
    among: set[str] | None = None
    if all_ and not dry_run and not yes:
        among = _confirmed(session)
        if among is None:
            session.screen.note("nothing was deleted")
            return 0
    verdicts = session.client.reap(dry_run=dry_run, all_=all_, on_stage=session.screen.note, among=among)
    if session.as_json:
        session.screen.document(documents.document(verdicts=documents.verdicts(verdicts), dry_run=dry_run))
    else:
        session.screen.lines(tables.verdicts(verdicts, session.screen.style, dry_run=dry_run))
    return 0


def _check(**given: object) -> None:
    """Refuse options that do not go together. Raises UsageError."""
    if given["all_"] and (given["every"] or given["install"]):
        raise UsageError("--all is for one pass", hint="`vmrun reap --all` now, `vmrun reap --every 60s` from then on")
    options = {"lasting": "--for", "health_file": "--health-file", "write": "--write", "dry_run": "--dry-run"}
    for name, needs in (("lasting", "every"), ("health_file", "every"), ("write", "install")):
        if given[name] and not given[needs]:
            raise UsageError(f"{options[name]} goes with --{needs}", hint="`vmrun reap --help` shows both")
    for name in ("lasting", "health_file", "dry_run"):
        if given[name] and given["install"]:
            raise UsageError(
                f"{options[name]} is not for --install",
                hint="print it without --write, and add the option where `reap` stands",
            )


def _confirmed(session: Session) -> set[str] | None:
    """The VMs that the person at the terminal saw and wants deleted; None for a no. Nobody there is a usage error."""
    if session.as_json or sys.stdin is None or not sys.stdin.isatty():
        raise UsageError(
            "--all deletes VMs that still work", hint="say --yes, or look first: `vmrun reap --all --dry-run`"
        )
    doomed: list[Verdict] = session.client.reap(dry_run=True, all_=True)
    session.screen.notes(tables.verdicts(doomed, session.screen.err_style, dry_run=True))
    found = {verdict.vm for verdict in doomed if verdict.delete}
    return found if not found or session.screen.ask("Delete them, and end the jobs on them?") else None
