"""The catalogue that comes with vmrun: one dated file for each cloud, made by tools/make_catalog.py."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from .table import Table, parse

#: Clouds that there is a catalogue of.
CLOUDS = ("ec2", "gce", "ibm")
DATA = Path(__file__).parent / "data"


@cache
def packaged(on: str) -> Table:
    """The packaged table of a cloud; one without rows for a name that is none of `CLOUDS`."""
    if on not in CLOUDS:
        return Table(on, "", (), ())
    return parse((DATA / f"{on}.json").read_text("ascii"))
