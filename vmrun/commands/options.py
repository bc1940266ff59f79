"""Arguments and options that several verbs share."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print a JSON document on stdout instead of text.")]
JobId = Annotated[str, typer.Argument(help="Id of the job, a unique part of it, or its name.")]
