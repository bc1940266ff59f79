"""The hands of a double over HTTP, under `/_double/`: for people, and for tests in other processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from typing import Any

from .double import Double
from .server import Reply, Request, json_reply
from .trouble import Rule, Trouble

PREFIX = "/_double/"
#: What is typed on a command line as text, as what it is.
_TYPES: Mapping[str, Callable[[Any], Any]] = {
    "trouble": Trouble,
    "times": int,
    "skip": int,
    "seconds": float,
    "size": int,
}


def answer(double: Double, request: Request) -> Reply | None:
    """The reply to a request for the double's hands; None for one to the cloud that it plays."""
    if not request.path.startswith(PREFIX):
        return None
    verb = request.path.removeprefix(PREFIX).strip("/")
    try:
        given = request.json() or {}
        if not isinstance(given, dict):
            raise TypeError(f"not an object: {given!r}"[:200])
        return _do(double, request.method, verb, given)
    except KeyError as error:
        return json_reply(404, {"error": f"there is no {error.args[0]}"})
    except (TypeError, ValueError) as error:
        return json_reply(400, {"error": str(error)})


def _do(double: Double, method: str, verb: str, given: dict[str, Any]) -> Reply:
    hands: dict[str, Callable[..., Any]] = {
        "power-off": double.power_off,
        "stop": double.stop_by_hand,
        "delete": double.delete_by_hand,
        "preempt": double.preempt,
        "announce": double.announce,
        "plant": double.plant,
    }
    if method == "GET":
        reads: dict[str, Callable[[], Any]] = {
            "": lambda: {"endpoint": double.endpoint, "hands": sorted(hands), "troubles": [t.value for t in Trouble]},
            "inventory": lambda: asdict(double.inventory()),
            "calls": lambda: [asdict(call) for call in list(double.script.calls)],
            "settings": double.settings,
            "environment": double.environment,
        }
        return json_reply(200, json.loads(json.dumps(reads[verb](), default=str)))
    if verb == "trouble" and method == "POST":
        double.script.add(rule(given))
    elif verb == "trouble" and method == "DELETE":
        double.script.clear()
    elif method == "POST":
        return json_reply(200, {"id": hands[verb](**given)})
    else:
        raise KeyError(f"{method} {verb}")
    return json_reply(200, {})


def rule(given: Mapping[str, Any]) -> Rule:
    """A rule from plain values. ValueError for what is none."""
    known = {field.name for field in fields(Rule)}
    if unknown := sorted(set(given) - known):
        raise ValueError(f"a rule has no {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    if "trouble" not in given:
        raise ValueError(f"which trouble? one of {', '.join(t.value for t in Trouble)}")
    return Rule(**{key: _TYPES.get(key, str)(value) for key, value in given.items()})


def rule_of_words(text: str) -> Rule:
    """A rule as it is written on a command line: `stockout zone=us-east-1a times=2`."""
    trouble, *words = text.split()
    given = {"trouble": trouble}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"not KEY=VALUE: {word}")
        given[key.replace("-", "_")] = value
    return rule(given)
