"""Lists: filtered, in pages, and as wrong as the script wants them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from tests.clouds.trouble import Trouble

from .refusals import Refusal, bad_field
from .requests import Answer, Ask
from .world import Shelf, Thing

_LIMIT, _LIMIT_MAX = 50, 100
_NO_FILTERS = {"version", "generation", "start", "limit", "sort"}
_HALF = "half."

T = TypeVar("T", bound=Thing)


def shelf(ask: Ask, key: str, things: Shelf[T], shape: Callable[[T], dict[str, Any]]) -> Answer:
    """What there is of a kind, as of now or, with a list that lags, of some time ago."""
    lag = ask.pick(Trouble.list_lag)
    seen = things.seen(ask.account.now() - (lag.seconds if lag else 0.0))
    return page(ask, key, [(thing.number, shape(thing)) for thing in seen])


def page(ask: Ask, key: str, rows: Iterable[tuple[int, dict[str, Any]]], *, paged: bool = True) -> Answer:
    """One page of rows that are numbered in ascending order; `start` is the number of the first, so that what
    vanishes or appears between two pages moves nothing.
    """
    found = [(number, body) for number, body in rows if _passes(body, ask.query)]
    start, limit = ask.query.get("start", ""), _limit(ask) if paged else len(found) + 1
    if start.startswith(_HALF):
        raise Refusal(500, "internal_error", "An internal error occurred.")
    first = _number(start)
    rest = [row for row in found if row[0] >= first]
    half = ask.pick(Trouble.half_a_list) if not start else None
    shown = rest[: len(rest) // 2] if half else rest[:limit]
    body: dict[str, Any] = {
        "first": {"href": _href(ask, limit, "")},
        "limit": min(limit, _LIMIT_MAX),
        "total_count": len(found),
        key: [row[1] for row in shown],
    }
    if half or len(rest) > limit:
        token = f"{_HALF}{first}" if half else f"{rest[limit][0]:08x}"
        body["next"] = {"href": _href(ask, limit, token)}
    return Answer(200, body)


def _limit(ask: Ask) -> int:
    text = ask.query.get("limit", str(_LIMIT))
    if not text.isdigit() or not 1 <= int(text) <= _LIMIT_MAX:
        raise bad_field("limit", text, f"The limit must be between 1 and {_LIMIT_MAX}")
    small = ask.pick(Trouble.small_pages)
    return min(int(text), max(1, small.size)) if small else int(text)


def _number(start: str) -> int:
    try:
        return int(start, 16) if start else 0
    except ValueError:
        raise Refusal(400, "invalid_id_format", "Bad ID format. Ensure format is correct.", "start", start) from None


def _href(ask: Ask, limit: int, start: str) -> str:
    link = f"{ask.account.base}{ask.about['path']}?limit={limit}"
    return f"{link}&start={start}" if start else link


def _passes(body: dict[str, Any], query: dict[str, str]) -> bool:
    for name, wanted in query.items():
        if name in _NO_FILTERS:
            continue
        value: Any = body
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if str(value) not in wanted.split(","):
            return False
    return True
