"""The catalogue's form: types of one cloud, with prices by region, as rows and as the JSON document that holds them.

The document lists each type once, one a line, so that it loads fast and two versions of it can be compared:
`{"format": 1, "on", "collected", "regions": [...], "dates": [...], "types": {TYPE: [vcpus, cores, memory in GiB, arch,
local disk in GB, [[region, usd, spot usd, date], ...]]}}`; regions and dates by their place in the lists, and null for
what is not known.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
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
    dates = sorted({row.priced_at for row in table.rows if row.priced_at})
    types: dict[str, list[Any]] = {}
    for row in table.rows:
        facts = [row.vcpus, row.cores, _short(row.memory_gib), row.arch, row.local_ssd_gb]
        line = types.setdefault(row.instance_type, [*facts, []])
        date = dates.index(row.priced_at) if row.priced_at else None
        line[-1].append([table.regions.index(row.region), row.usd_per_hour, row.spot_usd_per_hour, date])
    head = {"format": FORMAT, "on": table.on, "collected": table.collected}
    parts = [f"{_text(key)}:{_text(value)}" for key, value in head.items()]
    parts += [f'"regions":{_text(table.regions)}', f'"dates":{_text(dates)}']
    lines = ",\n".join(f"{_text(name)}:{_text(line)}" for name, line in types.items())
    return "{" + ",\n".join(parts) + ',\n"types":{\n' + lines + "\n}}\n"


def parse(text: str) -> Table:
    """The table of a document. Raises BadCatalog."""
    try:
        document = json.loads(text)
        if document["format"] != FORMAT:
            raise BadCatalog(f"format {document['format']!r:.20} instead of {FORMAT}")
        regions, dates = tuple(document["regions"]), document["dates"]
        rows = []
        for name, (vcpus, cores, memory, arch, disk, prices) in document["types"].items():
            for region, usd, spot, date in prices:
                row = PriceRow(
                    instance_type=name,
                    vcpus=vcpus,
                    cores=cores,
                    memory_gib=memory,
                    arch=arch,
                    local_ssd_gb=disk,
                    region=regions[region],
                    usd_per_hour=usd,
                    spot_usd_per_hour=spot,
                    priced_at="" if date is None else dates[date],
                )
                rows.append(row)
        return Table(str(document["on"]), str(document["collected"]), regions, tuple(rows))
    except BadCatalog:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise BadCatalog(f"{type(error).__name__}: {error}") from error


def _short(number: float) -> float:
    return int(number) if number == int(number) else number


def _text(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
