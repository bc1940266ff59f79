"""Listings over all zones and regions of a project: all of it, or an error."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from vmrun.core.clouds import CloudError

from . import errors
from .api import GoogleApi

log = logging.getLogger(__name__)

#: Warnings of a scope whose list is complete all the same.
_HARMLESS = frozenset({"NO_RESULTS_ON_PAGE", "DEPRECATED_RESOURCE_USED", "DEPRECATED_TYPE_USED"})


def scoped(api: GoogleApi, method: str, key: str, *, regions: frozenset[str], filter: str) -> Iterator[dict[str, Any]]:
    """All resources of an aggregated listing; `key` is their name in a scope, such as `instances`.

    A scope of `regions` that could not be reached is a CloudError, when everything else has been given: the listing
    answers with success even so. Of other regions nothing is asked, so that their outages hold up nothing.
    """
    gaps: list[str] = []
    for page in api.pages(method, filter=filter, maxResults=500):
        gaps += _gaps(page)
        for found in (page.get("items") or {}).values():
            yield from found.get(key) or ()
    missing = sorted({gap for gap in gaps if _concerns(gap, regions)})
    if missing:
        raise _incomplete(method, missing)
    if gaps:
        log.warning("event=listing-incomplete method=%s scopes=%s", method, ",".join(sorted(set(gaps))))


def _gaps(page: Mapping[str, Any]) -> list[str]:
    """The scopes that a page lacks; "" for one that is not named."""
    gaps = [str(each) for each in page.get("unreachables") or ()]
    for scope, found in (page.get("items") or {}).items():
        if _warns(found):
            gaps.append(str(scope))
    return gaps or ([""] if _warns(page) else [])


def _warns(found: Mapping[str, Any]) -> bool:
    code = (found.get("warning") or {}).get("code")
    return code is not None and code not in _HARMLESS


def _concerns(scope: str, regions: frozenset[str]) -> bool:
    """Whether a scope as `zones/us-central1-a`, or a URL that ends so, may be in one of the regions."""
    kind, _, name = scope.rstrip("/").rpartition("/")
    if kind.endswith("zones"):
        return name.rpartition("-")[0] in regions
    if kind.endswith("regions"):
        return name in regions
    return True


def _incomplete(method: str, scopes: list[str]) -> CloudError:
    where = ", ".join(scope for scope in scopes if scope) or "some zones"
    return errors.unreachable(method.partition(".")[2], f"the listing lacks {where}")
