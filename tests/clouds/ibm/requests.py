"""A request that was understood, and finding what it speaks of."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tests.clouds.trouble import Rule, Script, Trouble

from .profiles import ZONES
from .refusals import Refusal, bad_field, not_found, over_quota, taken
from .world import Account, Shelf, Thing, Work, region_of

_NAME = re.compile(r"[a-z]|[a-z][-a-z0-9]*[a-z0-9]")
_NAME_MAX = 63
_WORDS = ("amber", "birch", "cedar", "dune", "ember", "fjord", "grove", "heron", "islet", "jetty", "knoll", "lagoon")

T = TypeVar("T", bound=Thing)


@dataclass
class Ask:
    """One call of the API."""

    operation: str
    account: Account
    script: Script
    path: dict[str, str]
    query: dict[str, str]
    body: dict[str, Any]
    version: str
    #: By which names and values rules of the script choose.
    about: dict[str, str] = field(default_factory=dict)

    def pick(self, *among: Trouble) -> Rule | None:
        """A rule for this call."""
        return self.script.pick(self.operation, *among, **self.about)


@dataclass
class Answer:
    """What is sent back, and what is done before it is."""

    status: int
    body: Any = None
    work: Work | None = None


Handler = Callable[[Ask], Answer]


def given(ask: Ask, shelf: Shelf[T], id: str) -> T:
    """What the path names. Refusal when there is none, or it is not visible yet."""
    thing = shelf.get(id)
    if thing is None or thing.visible > ask.account.now():
        raise not_found(shelf.kind, id)
    return thing


def referred(shelf: Shelf[T], identity: dict[str, Any], where: str) -> T:
    """What a field of the body refers to, by `id`, `crn` or `href`. Refusal when there is none."""
    wanted = str(identity.get("id") or identity.get("crn") or identity.get("href") or "")
    thing = shelf.get(re.split(r"[:/]", wanted)[-1])
    if thing is None:
        raise bad_field(where, wanted, f"{shelf.kind} not found: '{wanted}'")
    return thing


def zone_of(identity: dict[str, Any] | None, where: str = "zone") -> str:
    """The zone that a field of the body refers to."""
    name = str((identity or {}).get("name") or str((identity or {}).get("href", "")).rpartition("/")[2])
    if name not in ZONES.get(region_of(name), ()):
        raise bad_field(where, name, f"invalid zone specified: {name}")
    return name


def is_name(name: Any) -> bool:
    """Whether it may be the name of anything in a VPC."""
    return isinstance(name, str) and bool(_NAME.fullmatch(name)) and len(name) <= _NAME_MAX


def new_name(ask: Ask, shelf: Shelf[Any], name: Any, *, region: str = "", where: str = "name") -> str:
    """The name that was asked for, or some words; Refusal when it is malformed or taken."""
    if name is None:
        return "-".join(random.sample(_WORDS, 4))
    if not is_name(name):
        raise bad_field(
            where, name, f"The name '{name}' must match {_NAME.pattern} and have {_NAME_MAX} letters at most"
        )
    if shelf.named(name, region) is not None:
        if shelf is ask.account.volumes:
            message = f'Volume with name "{name}" already exists'
            raise Refusal(400, "volume_name_duplicate", message, where, name)
        raise taken(name)
    return str(name)


def resource_group_of(ask: Ask) -> str:
    """The resource group that the body names, or the account's own."""
    wanted = (ask.body.get("resource_group") or {}).get("id")
    if wanted is None:
        return ask.account.default_resource_group()
    if wanted not in ask.account.resource_groups:
        raise bad_field("resource_group.id", wanted, f"Resource group not found: '{wanted}'")
    return str(wanted)


def within(what: str, present: int, limit: int) -> None:
    """Refusal when one more is too many."""
    if present >= limit:
        raise over_quota(what, limit)
