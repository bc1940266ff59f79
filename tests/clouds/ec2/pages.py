"""Lists in pages: as small as asked for, or as a rule has it, or ending in an error half way."""

from __future__ import annotations

import secrets
import xml.etree.ElementTree as ET
from dataclasses import dataclass

from tests.clouds.server import Reply
from tests.clouds.trouble import Rule, Trouble

from .protocol import Call, Refused, element, xml_reply

#: Pages when the caller asks for no size; and what EC2 lets one ask for.
_SIZES = {"DescribeInstances": (1000, 5, 1000), "DescribeInstanceTypes": (100, 5, 100)}
_OTHER = (1000, 1, 1000)
#: Unread lists that are kept.
_KEPT = 200


@dataclass
class _Rest:
    operation: str
    tag: str
    items: list[ET.Element]
    size: int
    breaks: bool


@dataclass(frozen=True)
class Page:
    """Part of a list."""

    #: Of the list.
    tag: str
    items: list[ET.Element]
    #: For the next page; None on the last one.
    token: str | None

    def reply(self, call: Call) -> Reply:
        """As EC2 answers."""
        following = [element("nextToken", text=self.token)] if self.token else []
        return xml_reply(call.operation, element(self.tag, *self.items), *following)


class Pages:
    """Cuts lists, and keeps what is still to be read."""

    def __init__(self) -> None:
        self._rests: dict[str, _Rest] = {}

    def resume(self, call: Call) -> Page | None:
        """The page that the call's token stands for; None when it brings no token."""
        token = call.parameters.get("NextToken")
        if not token:
            return None
        rest = self._rests.get(token)
        if rest is None or rest.operation != call.operation:
            raise Refused("InvalidNextToken", f"The token '{token[:80]}' is invalid")
        if rest.breaks:
            raise Refused("InternalError", "An internal error has occurred", 500)
        return self._cut(call.operation, rest.tag, rest.items, rest.size)

    def first(self, call: Call, tag: str, items: list[ET.Element], rule: Rule | None) -> Page:
        """The first page of a list."""
        default, least, most = _SIZES.get(call.operation, _OTHER)
        asked = call.parameters.get("MaxResults")
        if asked is not None and not least <= int(asked) <= most:
            raise Refused("InvalidParameterValue", f"Value ( {asked} ) for parameter maxResults is invalid.")
        if rule is not None and rule.trouble is Trouble.half_a_list:
            half = len(items) // 2
            return Page(tag, items[:half], self._keep(_Rest(call.operation, tag, items[half:], 0, breaks=True)))
        size = int(asked or default)
        if rule is not None and rule.trouble is Trouble.small_pages:
            size = min(size, max(1, rule.size))
        return self._cut(call.operation, tag, items, size)

    def _cut(self, operation: str, tag: str, items: list[ET.Element], size: int) -> Page:
        if len(items) <= size:
            return Page(tag, items, None)
        return Page(tag, items[:size], self._keep(_Rest(operation, tag, items[size:], size, breaks=False)))

    def _keep(self, rest: _Rest) -> str:
        token = secrets.token_urlsafe(24)
        self._rests[token] = rest
        while len(self._rests) > _KEPT:
            del self._rests[next(iter(self._rests))]
        return token


def list_in(root: ET.Element) -> ET.Element | None:
    """The list that an answer of EC2 consists of; None where it is none, or empty."""
    for child in root:
        if len(child) and all(one.tag == "item" for one in child):
            return child
    return None
