"""Waiting for what Compute Engine has accepted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vmrun.core.clock import Clock
from vmrun.core.clouds import CloudError

from . import errors
from .api import GoogleApi
from .machines import last

#: Seconds between looks at an operation: at first, and at most.
_LOOK_FIRST, _LOOK_MAX = 0.25, 2.0


class Unseen(Exception):
    """An operation could not be looked at: what has become of it is not known."""

    def __init__(self, why: CloudError) -> None:
        super().__init__(why.message)
        self.why = why


def settle(
    api: GoogleApi,
    clock: Clock,
    operation: Mapping[str, Any],
    *,
    doing: str,
    patience: float,
    creating: bool = False,
) -> bool:
    """Wait up to `patience` seconds until an operation is done; whether it is. CloudError if it failed.

    Raises Unseen when it cannot be looked at.
    """
    give_up = clock.monotonic() + patience
    pause = _LOOK_FIRST
    while True:
        trouble = errors.read_operation(operation)
        if trouble is not None:
            raise errors.cloud_error(trouble, doing=doing, project=api.project, creating=creating)
        if operation.get("status") == "DONE":
            return True
        if clock.monotonic() >= give_up:
            return False
        clock.sleep(pause)
        pause = min(_LOOK_MAX, pause * 2)
        operation = _look(api, operation)


def _look(api: GoogleApi, operation: Mapping[str, Any]) -> dict[str, Any]:
    name = str(operation.get("name", ""))
    try:
        if operation.get("zone"):
            return api.read("compute.zoneOperations.get", zone=last(operation["zone"]), operation=name)
        return api.read("compute.globalOperations.get", operation=name)
    except CloudError as error:
        raise Unseen(error) from error
