"""The links by which requests name resources: full, or the part that is enough."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .faults import invalid
from .store import Key

_LINK = re.compile(
    r"(?:https://(?:www|compute)\.googleapis\.com/compute/v1/)?"
    r"(?:projects/(?P<project>[^/]+)/)?"
    r"(?P<scope>zones/[^/]+|regions/[^/]+|global)/(?P<collection>\w+)/(?P<name>[^/]+(?:/[^/]+)?)"
)


@dataclass(frozen=True)
class Link:
    """What a link names; `project` is "" when it does not say."""

    project: str
    key: Key


def read(field: str, text: str, collection: str) -> Link:
    """Refuses, naming `field`, what is no link to a resource of this collection."""
    found = _LINK.fullmatch(text)
    if found is None or found["collection"] != collection:
        raise invalid(field, text, "The URL is malformed.")
    return Link(found["project"] or "", Key(collection, found["scope"], found["name"]))
