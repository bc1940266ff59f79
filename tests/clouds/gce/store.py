"""The resources of the double's project, as they are and as they were a while ago."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

#: How the real service begins the link of every resource.
ROOT = "https://www.googleapis.com/compute/v1/"
#: Seconds for which the past is kept.
_PAST = 900.0

Resource = Mapping[str, Any]


@dataclass(frozen=True, order=True)
class Key:
    """What a resource is known by."""

    #: As `instances`.
    collection: str
    #: `zones/us-central1-a`, `regions/us-central1`, or `global`.
    scope: str
    name: str

    @property
    def path(self) -> str:
        return f"{self.scope}/{self.collection}/{self.name}"


class Store:
    """Resources in the form in which the API gives them. They are replaced, never changed in place.

    Not safe from several threads: its owner holds a lock.
    """

    def __init__(self, project: str, now: Callable[[], float]) -> None:
        self.project = project
        self.now = now
        self._resources: dict[Key, Resource] = {}
        #: What there was from a moment on; the first reaches back for ever.
        self._past: list[tuple[float, dict[Key, Resource]]] = [(0.0, {})]
        self._ids = itertools.count(4_000_000_000_000_000_001)
        #: Ids of resources that are to come.
        self._reserved: dict[Key, str] = {}

    def new_id(self) -> str:
        return str(next(self._ids))

    def id_of(self, key: Key) -> str:
        """The id of a resource that is there, or the one that it will have."""
        if found := self._resources.get(key):
            return str(found["id"])
        return self._reserved.setdefault(key, self.new_id())

    def timestamp(self, at: float | None = None) -> str:
        """A moment (seconds since the epoch; None: now) as the API writes it."""
        moment = datetime.fromtimestamp(self.now() if at is None else at, UTC)
        return moment.isoformat(timespec="milliseconds")

    def path(self, key: Key) -> str:
        """As errors name it: `projects/p/zones/z/instances/n`."""
        return f"projects/{self.project}/{key.path}"

    def link(self, key: Key) -> str:
        return ROOT + self.path(key)

    def add(self, key: Key, resource: Resource, kind: str) -> Resource:
        """A new resource with what all resources have: its kind, id, name, link and time of creation."""
        common = {
            "kind": f"compute#{kind}",
            "id": self._reserved.pop(key, None) or self.new_id(),
            "creationTimestamp": self.timestamp(),
            "name": key.name,
            "selfLink": self.link(key),
        }
        return self.put(key, {**resource, **common})

    def put(self, key: Key, resource: Resource) -> Resource:
        self._resources[key] = resource
        self._note()
        return resource

    def update(self, key: Key, **changes: Any) -> Resource:
        """Change some fields; those that become None go."""
        merged = {**self._resources[key], **changes}
        return self.put(key, {name: value for name, value in merged.items() if value is not None})

    def remove(self, key: Key) -> None:
        if self._resources.pop(key, None) is not None:
            self._note()

    def find(self, key: Key) -> Resource | None:
        """By name, or by the number that is its id."""
        if found := self._resources.get(key):
            return found
        if key.name.isdigit():
            return next((one for _, one in self.of(key.collection, key.scope) if one["id"] == key.name), None)
        return None

    def of(self, collection: str, scope: str = "", *, age: float = 0.0) -> Iterator[tuple[Key, Resource]]:
        """Those of a collection, of one scope or of all, in order of scope and name; as they were `age` seconds ago."""
        resources = self._resources if age <= 0 else self._then(self.now() - age)
        for key in sorted(resources):
            if key.collection == collection and scope in ("", key.scope):
                yield key, resources[key]

    def _then(self, moment: float) -> Mapping[Key, Resource]:
        return next(state for at, state in reversed(self._past) if at <= moment)

    def _note(self) -> None:
        now = self.now()
        self._past.append((now, dict(self._resources)))
        while len(self._past) > 1 and self._past[1][0] < now - _PAST:
            del self._past[0]
