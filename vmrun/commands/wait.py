"""`vmrun wait`: come back to a job and stay until it has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vmrun.core.errors import VmrunError
from vmrun.core.units import parse_duration
from vmrun.core.views import JobView

from . import finish
from .follow import tell as tell_news
from .giving_back import then_give_back
from .options import JobId, Json
from .session import Interrupted, Session, session_of

if TYPE_CHECKING:
    from vmrun.handle import JobHandle

EXAMPLES = (
    ("vmrun wait JOB", "show its progress until it has ended"),
    ("vmrun wait JOB --timeout 10m", "give up after ten minutes; the job goes on"),
    ("vmrun wait JOB && vmrun result JOB", "its values, once it is done"),
)


class StillRunning(VmrunError):
    """The time to wait is over before the job was."""

    code = "timeout"
    retryable = True


def command(
    ctx: typer.Context,
    job: JobId,
    *,
    timeout: Annotated[str | None, typer.Option(metavar="TIME", help="Wait no longer than this, as 10m.")] = None,
    json: Json = False,
) -> int:
    """Wait until JOB has ended. Exits with 0 when it is done, 6 when it failed, 8 when it was cancelled.

    After --timeout it exits with 1. Ctrl-C ends the waiting, not the job.
    """
    del json
    session = session_of(ctx)
    seconds = None if timeout is None else parse_duration(timeout, "--timeout")
    handle = session.client.handle(job)
    try:
        view = _wait(session, handle, seconds)
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped waiting; job {handle.id} goes on", hint=f"`vmrun cancel {handle.id}` ends it"
        ) from None

    def tell() -> int:
        # Why tasks failed is part of how the job ended; their values and files are `vmrun result`'s.
        results = handle.collect(None) if finish.error_of(view, None) is not None else None
        return finish.ended(session.screen, view, results)

    return then_give_back(session, handle.id, tell)


def _wait(session: Session, handle: JobHandle, seconds: float | None) -> JobView:
    if seconds is not None:
        try:
            return handle.wait(seconds)
        except TimeoutError as error:
            state = handle.status().state.value
            raise StillRunning(
                f"job {handle.id} is still {state}", hint="it goes on; wait longer, or look at `vmrun status`"
            ) from error
    # One that lost or outgrew its machine is seen to by the watch, at once.
    if not handle.status().stranded:
        session.client.revive(handle.id)
    progress = session.screen.progress()
    view: JobView | None = None
    try:
        for snapshot in handle.watch(output=False):
            tell_news(session.screen, snapshot)
            progress.see(snapshot)
            view = snapshot.job
            # Further on, the watch gives back the machine.
            if view.state.ended:
                break
    finally:
        progress.close()
    return view if view is not None else handle.status()
