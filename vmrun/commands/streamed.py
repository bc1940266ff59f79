"""One JSON document that is written as it is read: what it lists may be larger than memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import typer

from vmrun.core.errors import VmrunError
from vmrun.render import Screen
from vmrun.rendering import documents


def one_document(
    screen: Screen,
    start: dict[str, Any],
    name: str,
    items: Iterable[dict[str, Any]],
    *,
    end: Callable[[], dict[str, Any]] = dict,
    lines: bool = False,
) -> None:
    """The fields of `start`, then `items` as the list `name`, then what `end` gives, then whether all went well.

    With `lines` each item has a line of its own. An error on the way ends the list and the command.
    """
    text = documents.dumps({"schema": documents.SCHEMA, **start})
    first, between, last = ("\n", ",\n", "\n") if lines else ("", ", ", "")
    screen.text(f'{text[:-1]}, "{name}": [')
    separator = first
    error: VmrunError | None = None
    try:
        for item in items:
            screen.text(f"{separator}{documents.dumps(item)}")
            separator = between
        closing = {**end(), "ok": True}
    except VmrunError as caught:
        error = caught
        closing = documents.failure(error)
        closing.pop("schema", None)
    screen.text(f"{last if separator == between else ''}], {documents.dumps(closing)[1:]}\n")
    screen.flush()
    if error is not None:
        raise typer.Exit(error.exit_code)
