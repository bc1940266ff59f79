"""`vmrun init`: a configuration file to start from, and the image of docker machines."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from vmrun.core.clouds import CloudError
from vmrun.core.errors import ConfigError, UsageError
from vmrun.registry import CLOUDS
from vmrun.rendering import documents
from vmrun.rendering.text import visible
from vmrun.settings import config_dir

from .options import Json
from .refusal import as_told
from .session import Session, session_of

EXAMPLES = (
    ("vmrun init", "write vmrun.toml here, every key commented out"),
    ("vmrun init --user", "write it into the configuration directory, for all projects"),
    ("vmrun init docker", "build the image that `--on docker` boots"),
    ("vmrun init ec2", "let machines on EC2 be reached, from here only; again: nothing is made twice"),
    ("vmrun init ec2 --dismantle", "remove them"),
)
FILE_NAME = "vmrun.toml"
_HINT = f"`vmrun init` writes a file, `vmrun init docker` builds an image, `vmrun init {'|'.join(CLOUDS)}` prepares one"


def command(
    ctx: typer.Context,
    what: Annotated[
        str | None, typer.Argument(metavar=f"docker|{'|'.join(CLOUDS)}", help="What to prepare.", show_default=False)
    ] = None,
    *,
    user: Annotated[bool, typer.Option("--user", help="Write the file into the configuration directory.")] = False,
    dismantle: Annotated[bool, typer.Option("--dismantle", help="Remove what was made at a cloud.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before a cloud account is changed.")] = False,
    json: Json = False,
) -> int:
    """Write a vmrun.toml that lists every key with its meaning and default, or prepare a driver.

    No configuration is needed for running jobs on this machine. A file that is there is never overwritten.

    At a cloud it makes what lets SSH in, from your own address only, and a network where there is none. All jobs of
    this deployment use it, and it costs nothing while no machine runs; what the configuration names of your own is used
    and not made.
    """
    del json
    session = session_of(ctx)
    if (user and what is not None) or (dismantle and what not in CLOUDS):
        wrong = "--user is for the file" if user else "--dismantle is for a cloud"
        raise UsageError(wrong, hint=_HINT)
    if what is None:
        return _write(session, config_dir() if user else Path.cwd())
    if what == "docker":
        return _docker(session)
    if what not in CLOUDS:
        raise UsageError(f"there is nothing to prepare for {what[:80]!r}", hint=_HINT)
    return _cloud(session, what, dismantle=dismantle, yes=yes)


def _cloud(session: Session, on: str, *, dismantle: bool, yes: bool) -> int:
    account, screen = session.client.account, session.screen
    doing = f"remove from your {on} account what `vmrun init {on}` made there"
    doing = (
        doing
        if dismantle
        else f"make in your {on} account the network and the rule for SSH that vmrun uses, where they are missing"
    )
    if not yes and not _confirmed(session, doing):
        screen.note("nothing was changed")
        return 0
    steps: list[str] = []
    progress = screen.progress()
    try:
        for step in account.dismantle(on) if dismantle else account.establish(on):
            steps.append(step)
            progress.stage(step)
    except CloudError as error:
        raise as_told(error) from error
    finally:
        progress.close()
    if session.as_json:
        screen.document(documents.document(on=on, dismantled=dismantle, steps=steps))
    else:
        ready = f"{on} is ready; `vmrun doctor --on {on}` checks it"
        last = f"{on} holds nothing of this deployment any more" if dismantle else ready
        screen.lines([*(visible(step) for step in steps), last])
    return 0


def _confirmed(session: Session, doing: str) -> bool:
    """Whether the person at the terminal wants it; nobody there is a usage error."""
    if session.as_json or sys.stdin is None or not sys.stdin.isatty():
        raise UsageError(f"this would {doing}, and nobody is there to be asked", hint="say --yes")
    return session.screen.ask(f"This will {doing}. Go on?")


def _write(session: Session, folder: Path) -> int:
    from vmrun.settings.reference import reference_text

    path = folder / FILE_NAME
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # It may come to hold the keys of a store.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ConfigError(f"{path} is there already", hint="edit it, or move it away first") from error
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}", hint="see to the directory's rights"
        ) from error
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(reference_text(live=False))
    if session.as_json:
        session.screen.document(documents.document(written=str(path)))
    else:
        session.screen.lines([f"wrote {visible(str(path))}"])
    return 0


def _docker(session: Session) -> int:
    progress = session.screen.progress()
    try:
        session.client.init_docker(progress.stage)
    finally:
        progress.close()
    if session.as_json:
        session.screen.document(documents.document(ready="docker"))
    else:
        session.screen.lines(["the image for `--on docker` is ready"])
    return 0
