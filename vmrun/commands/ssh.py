"""`vmrun ssh`: a shell on a VM, or one command there."""

from __future__ import annotations

import os
import shlex
from typing import Annotated

import typer

from vmrun.core.errors import UsageError
from vmrun.rendering import documents

from .options import Json
from .session import session_of

EXAMPLES = (
    ("vmrun ssh VM", "a shell"),
    ("vmrun ssh VM -- df -h /", "one command, its words taken as they are"),
    ("vmrun ssh VM -- 'ps ax | head'", "one text, for the shell over there"),
)


def command(
    ctx: typer.Context,
    vm: Annotated[str, typer.Argument(help="Id of the VM, or a unique beginning of it.")],
    *,
    json: Json = False,
) -> int:
    """Log in to VM with the key and the pinned host key that it was made with. What follows -- is run there.

    Becomes the ssh program, whose exit code is the command's. With --json it prints the command line instead.
    """
    del json
    session = session_of(ctx)
    argv = [*session.client.ssh_argv(vm), *remote_words(session.program or ())]
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


def remote_words(program: tuple[str, ...]) -> list[str]:
    """The command for the shell over there, which splits it again: several words stay what they are, one is a text."""
    if len(program) == 1:
        return list(program)
    return [shlex.join(program)] if program else []
