"""`vmrun _bring-up`: the process in the background that gets a detached job its machine."""

from __future__ import annotations

import typer

from .options import JobId, Json
from .session import session_of

EXAMPLES = (("vmrun _bring-up JOB", "what `vmrun submit --detach` starts in the background"),)


def command(ctx: typer.Context, job: JobId, *, json: Json = False) -> int:
    """Get JOB its machine."""
    del json
    from vmrun.attending import bring_up_job
    from vmrun.settings import load_settings

    session_of(ctx)
    bring_up_job(load_settings(), job)
    return 0
