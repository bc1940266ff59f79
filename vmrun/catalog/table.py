"""The catalogue's form: types of one cloud, with prices by region, as rows and as the JSON document that holds them.

The document lists each type once, one a line, so that it loads fast and two versions of it can be compared:
`{"format": 1, "on", "collected", "regions": [...], "dates": [...], "types": {TYPE: [vcpus, cores, memory in GiB, arch,
local disk in GB, [[region, usd, spot usd, date], ...]]}}`; regions and dates by their place in the lists, and null for
what is not known. A fifth entry is the date of a spot price that is not as old as the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vmrun.core.estates import PriceRow

FORMAT = 1
GIB = 2**30


class BadCatalog(ValueError):
    """A document that is no catalogue of this format."""


@dataclass(frozen=True, slots=True)
class Table:
    """The types and prices of one cloud."""

    on: str
    #: Day on which the rows were gathered, ISO.
    collected: str
    regions: tuple[str, ...]
    rows: tuple[PriceRow, ...]


def table_of(on: str, collected: str, rows: Iterable[PriceRow]) -> Table:
    """A table of rows in any order; regions in the order in which the rows name them first.

    Of several rows of a type in a region the last one counts.
    """
    kept = tuple({(row.instance_type, row.region): row for row in rows}.values())
    return Table(on, collected, tuple(dict.fromkeys(row.region for row in kept)), kept)


def dump(table: Table) -> str:
    """The document of a table: the same rows give the same text."""
    dates = sorted({date for row in table.rows for date in (row.priced_at, row.spot_priced_at) if date})
    types: dict[str, list[Any]] = {}
    for row in table.rows:
        facts = [row.vcpus, row.cores, _short(row.memory_gib), row.arch, row.local_ssd_gb]
        line = types.setdefault(row.instance_type, [*facts, []])
        price = [table.regions.index(row.region), row.usd_per_hour, row.spot_usd_per_hour, _place(row.priced_at, dates)]
        other = [] if row.spot_priced_at is None else [_place(row.spot_priced_at, dates)]
        line[-1].append(price + other)
    head = {"format": FORMAT, "on": table.on, "collected": table.collected}
    parts = [f"{_text(key)}:{_text(value)}" for key, value in head.items()]
    parts += [f'"regions":{_text(table.regions)}', f'"dates":{_text(dates)}']
    lines = ",\n".join(f"{_text(name)}:{_text(line)}" for name, line in types.items())
    return "{" + ",\n".join(parts) + ',\n"types":{\n' + lines + "\n}}\n"


def parse(text: str) -> Table:
    """The table of a document. Raises BadCatalog."""
    try:
        document = json.loads(text, parse_constant=_refuse)
        if document["format"] != FORMAT:
            raise BadCatalog(f"format {document['format']!r:.20} instead of {FORMAT}")
        regions, dates = tuple(document["regions"]), document["dates"]
        rows: list[PriceRow] = []
        for name, line in document["types"].items():
            rows += _rows(name, line, regions, dates)
        return Table(str(document["on"]), str(document["collected"]), regions, tuple(rows))
    except BadCatalog:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise BadCatalog(f"{type(error).__name__}: {error}") from error


def _rows(name: str, line: list[Any], regions: tuple[str, ...], dates: list[str]) -> Iterator[PriceRow]:
    vcpus, cores, memory, arch, disk, prices = line
    if not (min(vcpus, cores, memory) > 0 and isinstance(arch, str)):
        raise BadCatalog(f"{name} has no vCPUs, cores or memory")
    for region, usd, spot, date, *other in prices:
        if (usd or 0) < 0 or (spot or 0) < 0:
            raise BadCatalog(f"{name} has a price below zero")
        yield PriceRow(
            instance_type=name,
            vcpus=vcpus,
            cores=cores,
            memory_gib=memory,
            arch=arch,
            local_ssd_gb=disk,
            region=regions[region],
            usd_per_hour=usd,
            spot_usd_per_hour=spot,
            priced_at=_date(date, dates),
            spot_priced_at=_date(other[0], dates) if other else None,
        )


def _refuse(constant: str) -> float:
    raise BadCatalog(f"{constant} is no number")


def _place(date: str, dates: list[str]) -> int | None:
    return dates.index(date) if date else None


def _date(place: int | None, dates: list[str]) -> str:
    return "" if place is None else dates[place]


def _short(number: float) -> float:
    return int(number) if number == int(number) else number


def _text(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
