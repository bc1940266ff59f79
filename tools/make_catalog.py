"""Make the packaged catalogue, `vmrun/catalog/data/*.json`, of tables of types and prices.

    python tools/make_catalog.py FOLDER 2026-11-22

FOLDER holds ec2.csv, gce.csv and ibm.csv, one row for each type and region, with the header
`instance_type,vcpus,memory_gib,arch,local_ssd_gb,region,price_usd_hour,spot_usd_hour,as_of`; an empty field is unknown.
The date is the day on which they were gathered. Sources are named in docs/explanation/catalog.md.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vmrun.catalog.machines import physical_cores
from vmrun.catalog.packaged import CLOUDS, DATA
from vmrun.catalog.table import dump, table_of
from vmrun.core.estates import PriceRow

#: Clouds whose spot prices come from a source that does not say of when they are; `as_of` is of the others.
UNDATED_SPOT = ("ec2",)


def rows(on: str, source: Path) -> Iterator[PriceRow]:
    """The rows of one file. Raises ValueError and KeyError for what is no such file."""
    with source.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            vcpus = int(row["vcpus"])
            yield PriceRow(
                instance_type=row["instance_type"],
                vcpus=vcpus,
                cores=physical_cores(on, row["instance_type"], vcpus, row["arch"]),
                memory_gib=float(row["memory_gib"]),
                arch=row["arch"],
                # Nothing is decided by it, so an unknown size may stand as none.
                local_ssd_gb=int(row["local_ssd_gb"] or 0),
                region=row["region"],
                usd_per_hour=float(row["price_usd_hour"]) if row["price_usd_hour"] else None,
                spot_usd_per_hour=float(row["spot_usd_hour"]) if row["spot_usd_hour"] else None,
                priced_at=row["as_of"],
                spot_priced_at="" if row["spot_usd_hour"] and on in UNDATED_SPOT else None,
            )


def main(folder: Path, collected: str, target: Path = DATA) -> None:
    """Write the file of each cloud."""
    target.mkdir(parents=True, exist_ok=True)
    for on in CLOUDS:
        text = dump(table_of(on, collected, rows(on, folder / f"{on}.csv")))
        (target / f"{on}.json").write_text(text, "ascii")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
