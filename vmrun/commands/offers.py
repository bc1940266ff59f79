"""`vmrun offers`: what the clouds rent, by price."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from vmrun.catalog import problem, regions, table
from vmrun.catalog.nearest import Where, nearest
from vmrun.core.clouds import Market, Need, Offer
from vmrun.core.errors import CapacityError, UsageError
from vmrun.registry import AUTO, CLOUDS, summary
from vmrun.rendering import documents
from vmrun.rendering.offers import offer_document, offers_table
from vmrun.settings import cache_dir

from .options import Arch, Cpus, InstanceType, Json, Memory, OnDemand, Spot, SpotWithFallback, market_of
from .request import check_described, check_option
from .session import Session, session_of

EXAMPLES = (
    ("vmrun offers --cpus 128 --memory 1TB", "the cheapest machines of that size in each cloud"),
    ("vmrun offers --on gce --cpus 64 --spot", "spot prices of one cloud"),
    ("vmrun offers --arch arm64 --region us-east-1", "one processor, one region"),
    ("vmrun offers --memory 4TB --limit 0 --json", "all that fits, for a program"),
    ("vmrun offers --refresh", "read types and prices anew from the clouds that are configured"),
)
#: Offers shown of each cloud.
LIMIT = 10


def _completions(incomplete: str) -> list[str]:
    return [name for name in (*CLOUDS, AUTO) if name.startswith(incomplete)]


def command(  # noqa: PLR0913 -- one parameter per option is how typer is told of them
    ctx: typer.Context,
    *,
    on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHERE",
            help="ec2, gce, ibm, or auto for those that are configured; repeatable, or a list. [default: all three]",
            autocompletion=_completions,
        ),
    ] = None,
    cpus: Cpus = None,
    memory: Memory = None,
    arch: Arch = None,
    instance_type: InstanceType = None,
    region: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="This region only; repeatable. [default: all that are known]"),
    ] = None,
    spot: Spot = False,
    on_demand: OnDemand = False,
    spot_with_fallback: SpotWithFallback = False,
    limit: Annotated[
        int, typer.Option(metavar="N", min=0, help="Offers to show of each cloud and market; 0: all.")
    ] = LIMIT,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Read types and prices from the clouds' own APIs first, and keep them.")
    ] = False,
    json: Json = False,
) -> int:
    """List machines that fit, cheapest first, with what they cost per hour and per physical core.

    Reads a catalogue that comes with vmrun: no account is needed, and no cloud is asked. A machine fits when its usable
    memory does, which is less than what is sold. Prices are list prices of machines alone, and as old as the table
    says; offers without a known price come last. --refresh, with credentials, keeps newer ones.
    """
    del json
    session = session_of(ctx)
    asked: dict[str, Any] = {"cpus": cpus, "memory": memory, "arch": arch, "instance_type": instance_type}
    said = check_described(asked)
    market = market_of(spot=spot, on_demand=on_demand, spot_with_fallback=spot_with_fallback)
    need = Need(**said, market=Market(market or "on-demand"))
    clouds = _clouds(on or [])
    wanted = [str(check_option("region", name)) for name in _listed(region or [])]
    if refresh:
        from .refresh import refresh_catalogues

        refresh_catalogues(session, clouds)
    clouds = _configured(clouds) if AUTO in clouds else clouds or CLOUDS
    where = Where(clouds, wanted, cache_dir=cache_dir())
    found = where.search(need)
    session.screen.notes(_warnings(where))
    if not found:
        raise CapacityError(f"nothing on {', '.join(clouds)} fits", hint=_hint(where, need))
    _show(session, where, found, limit)
    return 0


def _warnings(where: Where) -> list[str]:
    """What is wrong with catalogues that were refreshed."""
    if where.cache_dir is None:
        return []
    found = [problem(on, where.cache_dir) for on in where.clouds]
    return [f"warning: {text}; `vmrun offers --refresh` writes it anew" for text in found if text]


def _listed(values: Sequence[str]) -> list[str]:
    """The values of an option that may be repeated, or given a list with commas."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def _clouds(values: Sequence[str]) -> tuple[str, ...]:
    """The clouds named, once each. Raises UsageError for what is none."""
    names = tuple(dict.fromkeys(_listed(values)))
    for name in names:
        if name not in (*CLOUDS, AUTO):
            summary(name)  # refuses a name that no driver has
            raise UsageError(f"--on: {name} rents no machines", hint=f"choose of: {', '.join((*CLOUDS, AUTO))}")
    return names


def _configured(clouds: Sequence[str]) -> tuple[str, ...]:
    """`clouds` with those that are configured in the place of `auto`."""
    from vmrun.settings import load_settings
    from vmrun.settings.configured import configured_clouds

    return tuple(dict.fromkeys([*(on for on in clouds if on != AUTO), *configured_clouds(load_settings(), os.environ)]))


def _hint(where: Where, need: Need) -> str:
    """What to do when nothing fits."""
    unknown = [name for name in where.regions if not any(name in _regions(where, on) for on in where.clouds)]
    hint = nearest(where, need)
    if unknown:
        known = ", ".join(name for on in where.clouds for name in _regions(where, on))
        return f"the catalogue has no region {', '.join(unknown)}, but {known}; {hint}"
    return hint


def _regions(where: Where, on: str) -> tuple[str, ...]:
    return regions(on, cache_dir=where.cache_dir)


def _show(session: Session, where: Where, found: Sequence[Offer], limit: int) -> None:
    shown = _first(found, limit)
    now = session.clock.now()
    if session.as_json:
        listed = [offer_document(offer, now) for offer in shown]
        gathered = {on: table(on, where.cache_dir).collected for on in where.clouds}
        session.screen.document(documents.document(offers=listed, fitting=len(found), catalogue=gathered))
        return
    session.screen.lines(offers_table(shown, now, session.screen.style))
    session.screen.notes(_notes(where, found, shown))


def _first(found: Sequence[Offer], limit: int) -> list[Offer]:
    """The first `limit` (0: all) offers of each cloud and market, in the order of `found`."""
    seen: Counter[tuple[str, bool]] = Counter()
    shown = []
    for offer in found:
        seen[offer.on, offer.spot] += 1
        if not limit or seen[offer.on, offer.spot] <= limit:
            shown.append(offer)
    return shown


def _notes(where: Where, found: Sequence[Offer], shown: Sequence[Offer]) -> list[str]:
    """What stands below the table: what it does not say."""
    notes = []
    if any(offer.usd_per_hour is None for offer in shown):
        notes.append("?: the price is not known; such offers come last")
    if missing := [on for on in where.clouds if not any(offer.on == on for offer in found)]:
        notes.append(f"nothing on {', '.join(missing)} fits")
    if len(shown) < len(found):
        notes.append(f"{len(shown)} of {len(found):,} offers that fit; --limit 0 shows all")
    return notes
