"""`vmrun init`: a configuration file to start from, and the image of docker machines."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from vmrun.core.errors import ConfigError, UsageError
from vmrun.rendering import documents
from vmrun.rendering.text import visible
from vmrun.settings import config_dir

from .options import Json
from .session import Session, session_of

EXAMPLES = (
    ("vmrun init", "write vmrun.toml here, every key commented out"),
    ("vmrun init --user", "write it into the configuration directory, for all projects"),
    ("vmrun init docker", "build the image that `--on docker` boots"),
)
FILE_NAME = "vmrun.toml"


def command(
    ctx: typer.Context,
    what: Annotated[str | None, typer.Argument(metavar="docker", help="What to prepare.")] = None,
    *,
    user: Annotated[bool, typer.Option("--user", help="Write the file into the configuration directory.")] = False,
    json: Json = False,
) -> int:
    """Write a vmrun.toml that lists every key with its meaning and default, or prepare a driver.

    No configuration is needed for running jobs on this machine. A file that is there is never overwritten.
    """
    del json
    session = session_of(ctx)
    if what is None:
        return _write(session, config_dir() if user else Path.cwd())
    if what != "docker" or user:
        raise UsageError(
            f"there is nothing to prepare for {what[:80]!r}" if what != "docker" else "--user is for the file",
            hint="`vmrun init` writes a file, `vmrun init docker` builds an image",
        )
    return _docker(session)


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
