"""`vmrun status`: jobs and VMs as they stand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from vmrun.core.errors import UsageError
from vmrun.rendering import documents, tables
from vmrun.rendering import pools as rendered_pools
from vmrun.rendering.text import Style

from .options import Json
from .session import Session, session_of
from .tasks import Wanted
from .tasks import show as show_tasks

EXAMPLES = (
    ("vmrun status", "all jobs, newest first, and all VMs"),
    ("vmrun status JOB", "one job: its tasks, its VMs, why it failed"),
    ("vmrun status JOB --tasks", "how its tasks went: those that failed, then the slowest"),
    ("vmrun status JOB --tasks --json", "the record of every task"),
    ("vmrun status --watch", "again and again, until Ctrl-C"),
)
#: Seconds between two looks.
EVERY = 2.0
#: Jobs, or tasks as text, that are shown if nobody says how many.
LIMIT = 50
#: Looks of one --watch at most: days.
LOOKS_MAX = 1_000_000


def command(  # noqa: PLR0913 -- one parameter per option is how typer is told of them
    ctx: typer.Context,
    job: Annotated[
        str | None, typer.Argument(metavar="JOB", help="Id of the job, a unique part of it, or its name.")
    ] = None,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again whenever something has changed.")] = False,
    tasks: Annotated[bool, typer.Option("--tasks", help="Show how JOB's tasks went.")] = False,
    failed: Annotated[bool, typer.Option("--failed", help="Only tasks that failed; implies --tasks.")] = False,
    state: Annotated[
        str | None, typer.Option(metavar="KIND", help="Only tasks that ended so: ok, raised, timeout, oom, ...")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=10_000,
            help="Show this many jobs or tasks at most. [default: 50; of tasks as JSON all]",
        ),
    ] = None,
    json: Json = False,
) -> int:
    """Show jobs and VMs, or one JOB: what they do, what they cost, why a VM counts as busy and when it ends.

    With --tasks, how the tasks of JOB went that have ended: time, CPU time, memory, worker, why they failed; those that
    failed come first, then those that took longest. It is in the store, and outlives the VM.
    """
    del json
    session = session_of(ctx)
    if tasks or failed or state is not None:
        _tasks(session, job, Wanted(failed, state, limit), watch=watch)
        return 0
    limit = limit or LIMIT
    look = _one(session, job) if job is not None else _all(session, limit)
    if watch:
        _watch(session, look)
    else:
        _show(session, look())
    return 0


def _tasks(session: Session, job: str | None, wanted: Wanted, *, watch: bool) -> None:
    if job is None:
        raise UsageError("the tasks of which job?", hint="`vmrun status JOB --tasks`; `vmrun status` lists the jobs")
    if watch:
        raise UsageError("--watch shows jobs, not their tasks", hint="leave out --watch")
    show_tasks(session, session.client.handle(job), wanted, LIMIT)


@dataclass(frozen=True, slots=True)
class _Look:
    """What one look saw."""

    #: Equal when nothing has changed.
    seen: object
    document: dict[str, Any]
    lines: Callable[[Style], list[str]]
    #: Nothing more will change.
    final: bool = False


def _one(session: Session, job: str) -> Callable[[], _Look]:
    handle = session.client.handle(job)

    def look() -> _Look:
        view, now = handle.status(), session.clock.now()
        return _Look(
            view,
            documents.document(job=documents.job(view)),
            lambda style: tables.job(view, now, style),
            final=view.state.ended,
        )

    return look


def _all(session: Session, limit: int) -> Callable[[], _Look]:
    def look() -> _Look:
        jobs, vms, now = session.client.jobs(limit), session.client.vms(), session.clock.now()
        pools = session.client.pools.views()

        def lines(style: Style) -> list[str]:
            shown = rendered_pools.pools(pools, now, style)
            return tables.status(jobs, vms, now, style) + (["", *shown] if shown else [])

        return _Look((jobs, vms, pools), documents.status(jobs, vms, pools), lines)

    return look


def _show(session: Session, look: _Look) -> None:
    if session.as_json:
        session.screen.document(look.document)
    else:
        session.screen.lines(look.lines(session.screen.style))


def _watch(session: Session, look: Callable[[], _Look]) -> None:
    if session.screen.interactive and not session.as_json:
        with session.screen.redrawn() as redraw:
            _repeat(session, look, lambda seen: redraw(seen.lines(session.screen.style)), always=True)
    else:
        _repeat(session, look, lambda seen: _show(session, seen), always=False)


def _repeat(session: Session, look: Callable[[], _Look], show: Callable[[_Look], None], *, always: bool) -> None:
    """Look every few seconds; show when something has changed, or `always`: times that pass are shown too."""
    before: object = None
    for _ in range(LOOKS_MAX):
        now = look()
        if always or now.seen != before:
            show(now)
        if now.final:
            return
        before = now.seen
        session.clock.sleep(EVERY)
