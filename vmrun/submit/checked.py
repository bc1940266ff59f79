"""Options of the Python API, checked and turned into what a request holds: what the command line does with its own."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from vmrun.core.errors import UsageError
from vmrun.job import check_options, unknown_option

#: Options that a submission takes and a decorator does not, and whether they are lists of texts.
REQUEST_ONLY = {
    "python": False,
    "with_packages": True,
    "requirements": False,
    "shared_file": False,
    "idempotency_key": False,
    "argv": True,
}


def checked_request(options: dict[str, Any], where: str, allowed: Iterable[str] = REQUEST_ONLY) -> dict[str, Any]:
    """Fields of a SubmitRequest: options of `@vmrun.job` with sizes and durations as people write them, and `allowed`.

    `where` stands in messages. Raises UsageError for an unknown name or a value that cannot be used.
    """
    allowed = tuple(allowed)
    own = {name: _own(name, value, where) for name, value in options.items() if name in allowed and value is not None}
    others = {name: value for name, value in options.items() if name not in allowed}
    for name in others:
        if name in REQUEST_ONLY:
            raise unknown_option(name, where, allowed)
    return {**check_options(others, where), **own}


def _own(name: str, value: object, where: str) -> object:
    if REQUEST_ONLY[name]:
        # One text is a list of one, not of its letters.
        texts = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Iterable) else (value,)
        if all(isinstance(text, str) for text in texts):
            return texts
        raise UsageError(f"{where}: {name}: expected texts, found {value!r:.80}", hint=f'such as {name}=["numpy"]')
    if isinstance(value, str | os.PathLike):
        return os.fspath(value)
    raise UsageError(f"{where}: {name}: expected a text, found {value!r:.80}", hint="put it in quotes")
