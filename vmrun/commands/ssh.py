"""`vmrun ssh`: a shell on a VM or in a job on it, or one command there."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from vmrun.core.errors import UsageError
from vmrun.rendering import documents

from .options import Json
from .session import session_of

EXAMPLES = (
    ("vmrun ssh VM", "a shell"),
    ("vmrun ssh JOB", "a shell in the job: its files, its environment, its user"),
    ("vmrun ssh JOB -- vmrun-again 7", "run failed task 7 again, on a machine that is held"),
    ("vmrun ssh VM -- df -h /", "one command, its words taken as they are"),
    ("vmrun ssh VM -- 'ps ax | head'", "one text, for the shell over there"),
)


def command(
    ctx: typer.Context,
    target: Annotated[
        str, typer.Argument(metavar="VM|JOB", help="Id of a VM, or a unique beginning of it; or a job, as elsewhere.")
    ],
    *,
    plain: Annotated[
        bool, typer.Option("--plain", help="Log in to the machine itself, with sudo, and not to the job on it.")
    ] = False,
    json: Json = False,
) -> int:
    """Log in to VM with the key and the pinned host key that it was made with. What follows -- is run there.

    A JOB that runs, or whose machine is held since it failed, is entered: in its directory, with its environment active
    and its variables set, as the user that its tasks run as. So is a VM that is held; --plain leads past the job.

    Becomes the ssh program, whose exit code is the command's. With --json it prints the command line instead.
    """
    del json
    session = session_of(ctx)
    argv = session.client.ssh_argv(target, session.program or (), plain=plain)
    if session.as_json:
        session.screen.document(documents.document(argv=argv))
        return 0
    session.screen.flush()
    try:
        os.execvp(argv[0], argv)  # noqa: S606 -- an argv, and no shell on this side
    except OSError as error:
        raise UsageError(
            f"{argv[0]} cannot be started: {error.strerror}", hint="install OpenSSH's client, then try again"
        ) from error
