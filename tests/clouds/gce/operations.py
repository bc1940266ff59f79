"""Operations: what a call that changes something answers with, and what tells later how it went."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Mapping
from typing import Any

from .faults import Failure, Refusal, invalid
from .store import Key, Resource, Store

_MESSAGES = {403: "FORBIDDEN", 404: "NOT FOUND", 409: "CONFLICT", 429: "TOO MANY REQUESTS", 503: "SERVICE UNAVAILABLE"}


class Operations:
    """All operations since the double began. As with the store, its owner holds a lock."""

    def __init__(self, store: Store, user: str) -> None:
        self._store = store
        self._user = user
        self._numbers = itertools.count(1)
        #: By request id: what was asked for, and the operation that came of it.
        self._requests: dict[str, tuple[str, Key]] = {}

    def repeated(self, request_id: str, asked: object) -> Resource | None:
        """The operation of an earlier call with this request id; None if there was none, or no id is given.

        Refuses an id that is none, and one that came before with another request: the real service is documented to
        ignore the second request, which would hide that it was another.
        """
        if not request_id:
            return None
        try:
            zero = uuid.UUID(request_id).int == 0
        except ValueError:
            zero = True
        if zero:
            raise invalid("requestId", request_id, "The request ID must be a valid UUID, not of zeros only.")
        if request_id not in self._requests:
            return None
        before, key = self._requests[request_id]
        if before != json.dumps(asked, sort_keys=True):
            raise invalid("requestId", request_id, "The request ID was used before for another request.")
        return self._store.find(key)

    def start(self, verb: str, target: Key, *, request_id: str = "", asked: object = None) -> Key:
        """A new operation, running, on a resource that may not be there yet."""
        number = next(self._numbers)
        key = Key("operations", target.scope, f"operation-{int(self._store.now() * 1000)}-{number:013x}-double")
        scope, _, place = target.scope.partition("/")
        operation: dict[str, Any] = {
            "operationType": verb,
            "targetLink": self._store.link(target),
            "targetId": self._store.id_of(target),
            "status": "RUNNING",
            "progress": 0,
            "user": self._user,
            "insertTime": self._store.timestamp(),
            "startTime": self._store.timestamp(),
        }
        if place:
            operation[scope.removesuffix("s")] = f"{self._store.link(key).partition('/operations/')[0]}"
        self._store.add(key, operation, "operation")
        if request_id:
            self._requests[request_id] = (json.dumps(asked, sort_keys=True), key)
        return key

    def finish(self, key: Key, failure: Failure | None = None) -> None:
        """It is done, well or with an error; once done it stays as it is."""
        operation = self._store.find(key)
        if operation is None or operation["status"] == "DONE":
            return
        changes: dict[str, Any] = {"status": "DONE", "progress": 100, "endTime": self._store.timestamp()}
        if failure:
            changes["error"] = failure.error()
            changes["httpErrorStatusCode"] = failure.status
            changes["httpErrorMessage"] = _MESSAGES.get(failure.status, "BAD REQUEST")
        self._store.update(key, **changes)

    def get(self, parameters: Mapping[str, Any], scope: str) -> Resource:
        """Raises Refusal if there is none of this name in this scope."""
        key = Key("operations", scope, parameters["operation"])
        found = self._store.find(key)
        if found is None:
            raise Refusal(404, "notFound", f"The resource '{self._store.path(key)}' was not found")
        return found
