"""What a double is told to do wrong, in words that are the same for all clouds; each double says it in its own."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from vmrun.core.clock import SystemClock


class Trouble(Enum):
    """One way in which a cloud fails. What it does to a call stands beside it."""

    #: Creating is refused: no room for this type in this zone.
    stockout = "stockout"
    #: Creating is refused: the account's quota.
    quota = "quota"
    #: Creating is refused: this type is not offered in this zone.
    not_offered = "not-offered"
    #: Refused: the caller may not.
    permission = "permission"
    #: Refused: the account cannot be billed.
    billing = "billing"
    #: Refused: too many requests.
    throttle = "throttle"
    #: Refused: something in the request is wrong (image, subnet).
    config = "config"
    #: The cloud fails inside before it does anything (HTTP 500, 503).
    unavailable = "unavailable"
    #: An error that no table knows.
    unknown = "unknown"
    #: Done, and the connection is cut before the answer.
    reply_lost = "reply-lost"
    #: The connection is cut before anything is done.
    request_lost = "request-lost"
    #: Creating is accepted; the instance then fails for want of capacity, in the cloud's own asynchronous way.
    accepted_then_failed = "accepted-then-failed"
    #: Creating is accepted; the instance is `seconds` late in lists and look-ups.
    late = "late"
    #: Lists are those of `seconds` ago.
    list_lag = "list-lag"
    #: Lists come in pages of `size`, whatever was asked for.
    small_pages = "small-pages"
    #: Lists answer with half of what there is, then fail.
    half_a_list = "half-a-list"


#: What a rule may be narrowed to.
_WHERE = ("instance_type", "zone", "region")


@dataclass
class Rule:
    """When a double does something wrong."""

    trouble: Trouble
    #: The operation by the cloud's own name (`RunInstances`, `compute.instances.insert`, `create_instance`); "": any
    #: to which the trouble can happen.
    operation: str = ""
    #: Only for this instance type, zone, region; "": any.
    instance_type: str = ""
    zone: str = ""
    region: str = ""
    #: How many times; -1: always.
    times: int = 1
    #: Calls that match and are let through first.
    skip: int = 0
    seconds: float = 0.0
    size: int = 0


@dataclass
class Call:
    """One request that a double was sent, whatever came of it."""

    operation: str
    #: What it was about, as plain values: instance type, zone, region, name, token, id, …; those that apply.
    about: dict[str, Any] = field(default_factory=dict)
    #: `ok`, or the cloud's own code of the error, or `cut`.
    outcome: str = ""
    #: When it came, in seconds since the epoch.
    at: float = field(default_factory=SystemClock().now)


class Script:
    """The rules of one double and the record of its calls; safe from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self.calls: list[Call] = []

    def add(self, rule: Rule) -> None:
        """From now on."""
        with self._lock:
            self._rules.append(rule)

    def clear(self) -> None:
        """Nothing goes wrong any more; the record starts anew."""
        with self._lock:
            self._rules.clear()
            self.calls.clear()

    def record(self, operation: str, **about: Any) -> Call:
        """Note a call; its outcome is filled in when it is known."""
        call = Call(operation, about)
        with self._lock:
            self.calls.append(call)
        return call

    def pick(self, operation: str, *among: Trouble, **about: str) -> Rule | None:
        """The first rule that applies to this call, of the troubles that can happen at this point of it; used once."""
        with self._lock:
            for rule in self._rules:
                if rule.trouble not in among or rule.operation not in ("", operation) or rule.times == 0:
                    continue
                if any(
                    getattr(rule, key) not in ("", about.get(key, "")) for key in ("instance_type", "zone", "region")
                ):
                    continue
                if rule.skip > 0:
                    rule.skip -= 1
                    continue
                if rule.times > 0:
                    rule.times -= 1
                return rule
        return None
