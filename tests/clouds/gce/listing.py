"""Answers of the list methods: filtered, in pages, of one scope or of all, and wrong in the ways of a cloud."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.clouds.trouble import Rule

from . import filters
from .discovery import Method
from .faults import Refusal, invalid
from .store import ROOT, Key, Resource

_PAGE = 500
Item = tuple[Key, Resource]


@dataclass(frozen=True)
class Wrong:
    """What is to be wrong with a list; None: nothing of that kind."""

    small: Rule | None = None
    half: Rule | None = None


def plain(method: Method, project: str, items: Iterable[Item], parameters: Mapping[str, Any], wrong: Wrong) -> Any:
    """The answer of `list`."""
    page, token = _page(items, parameters, wrong)
    answer: dict[str, Any] = {
        "kind": f"compute#{_kind(method)}List",
        "id": f"projects/{project}/{method.collection}",
        "selfLink": f"{ROOT}projects/{project}/{method.collection}",
    }
    # A list of nothing has no items at all.
    if page:
        answer["items"] = [resource for _, resource in page]
    if token:
        answer["nextPageToken"] = token
    return answer


def aggregated(
    method: Method,
    project: str,
    items: Iterable[Item],
    parameters: Mapping[str, Any],
    wrong: Wrong,
    scopes: Sequence[str],
) -> Any:
    """The answer of `aggregatedList`: every scope is there, those of which the page has nothing with a warning."""
    unreachable: list[str] = []
    if wrong.half and wrong.half.size:
        # This way the list looks complete: it ends, and says beside it that some of it could not be read.
        items = list(items)
        held = sorted({key.scope for key, _ in items}) or list(scopes)
        unreachable = held[len(held) // 2 :]
        items = [item for item in items if item[0].scope not in unreachable]
        wrong = Wrong(wrong.small)
    page, token = _page(items, parameters, wrong)
    answer: dict[str, Any] = {
        "kind": f"compute#{_kind(method)}AggregatedList",
        "id": f"projects/{project}/aggregated/{method.collection}",
        "selfLink": f"{ROOT}projects/{project}/aggregated/{method.collection}",
        "items": {scope: _scope(method, scope, page, unreachable) for scope in scopes},
    }
    if unreachable:
        answer["unreachables"] = [f"{ROOT}projects/{project}/{scope}" for scope in unreachable]
    if token:
        answer["nextPageToken"] = token
    return answer


def _scope(method: Method, scope: str, page: Iterable[Item], unreachable: Sequence[str]) -> dict[str, Any]:
    found = [resource for key, resource in page if key.scope == scope]
    if found:
        return {method.collection: found}
    code, message = "NO_RESULTS_ON_PAGE", f"There are no results for scope '{scope}' on this page."
    if scope in unreachable:
        code, message = "UNREACHABLE", f"The scope '{scope}' is not reachable."
    return {"warning": {"code": code, "message": message, "data": [{"key": "scope", "value": scope}]}}


def _kind(method: Method) -> str:
    """As in `compute#instanceList`."""
    return method.collection.removesuffix("es" if method.collection == "addresses" else "s")


# --- pages ---


def _page(items: Iterable[Item], parameters: Mapping[str, Any], wrong: Wrong) -> tuple[list[Item], str]:
    """One page and the token of the next, "" after the last."""
    test = _filter(parameters.get("filter", ""))
    found = _ordered([item for item in items if test(item[1])], parameters.get("orderBy", ""))
    after, broken = _token(parameters.get("pageToken", ""))
    if broken:
        raise Refusal(503, "backendError", "Service is unavailable at this time. Please try again later.")
    ids = [f"{key.scope}/{key.name}" for key, _ in found]
    start = ids.index(after) + 1 if after in ids else sum(1 for one in ids if after and one <= after)
    size = parameters.get("maxResults", _PAGE)
    if size > _PAGE:
        raise invalid("maxResults", size, f"Values must be within the range of [0, {_PAGE}].")
    size = size or _PAGE
    if wrong.small:
        size = max(1, wrong.small.size)
    page = found[start : start + size]
    if wrong.half and not after:
        page = found[: len(found) // 2]
        return page, _new_token(ids[len(page) - 1] if page else "", broken=True)
    return page, _new_token(ids[start + size - 1], broken=False) if len(found) > start + size else ""


def _ordered(items: list[Item], order: str) -> list[Item]:
    if order in ("", "name"):
        return items
    if order == "creationTimestamp desc":
        return sorted(items, key=lambda item: str(item[1]["creationTimestamp"]), reverse=True)
    raise invalid("orderBy", order, "It must be 'name' or 'creationTimestamp desc'.")


def _filter(text: str) -> Callable[[Resource], bool]:
    try:
        return filters.parse(text)
    except filters.BadFilter as error:
        raise invalid("filter", text, f"Invalid list filter expression: {error}") from error


def _new_token(after: str, *, broken: bool) -> str:
    return base64.urlsafe_b64encode(json.dumps([after, broken]).encode()).decode()


def _token(text: str) -> tuple[str, bool]:
    if not text:
        return "", False
    try:
        after, broken = json.loads(base64.urlsafe_b64decode(text))
    except (binascii.Error, ValueError) as error:
        raise invalid("pageToken", text, "Invalid page token.") from error
    return after, broken
