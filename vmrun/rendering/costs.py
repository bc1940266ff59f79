"""What was spent, as a table for people and as JSON."""

from __future__ import annotations

import datetime as dt
from typing import Any

from vmrun.watch.costs import DAY, By, Costs, Row

from .tables import Column, table
from .text import Style, count, money, visible

#: What the row of time without a job is called.
IDLE = "idle"


def costs_document(costs: Costs) -> dict[str, Any]:
    """A report; its rows in the order of the table."""
    rows = []
    for key in _order(costs):
        head: dict[str, Any] = {costs.by.value: _heading(costs, key)}
        if costs.by is By.job:
            head = {"job": key or None, "name": costs.names.get(key), "kind": "job" if key else IDLE}
        rows.append({**head, **_figures(costs.rows[key])})
    return {
        "since": costs.since,
        "until": costs.until,
        "by": costs.by.value,
        "rows": rows,
        "total": _figures(costs.total),
        "vms": costs.vms,
        "unreadable": costs.unreadable,
    }


def _figures(row: Row) -> dict[str, Any]:
    return {
        "hours": round(row.hours, 6),
        "usd": round(row.total, 6),
        "usd_on_demand": round(row.on_demand, 6),
        "usd_spot": round(row.spot, 6),
        "usd_disk": round(row.disk, 6),
        "usd_address": round(row.address, 6),
        "usd_idle": round(row.idle, 6),
        "unpriced_hours": round(row.unpriced, 6),
        "unpriced_disk_hours": round(row.unpriced_disk, 6),
        "unpriced_address_hours": round(row.unpriced_address, 6),
    }


def costs_table(costs: Costs, style: Style) -> list[str]:
    """A report, a row for each job, day or cloud, and one for all."""
    heads = [Column(costs.by.value.upper()), *([Column("NAME", flexible=True)] if costs.by is By.job else [])]
    names = ("HOURS", "ON-DEMAND", "SPOT", "DISK", "ADDRESS", *(() if costs.by is By.job else ("IDLE",)), "TOTAL")
    rows = []
    for key in _order(costs):
        named = [visible(costs.names.get(key, ""))] if costs.by is By.job else []
        rows.append((visible(_heading(costs, key)), *named, *_cells(costs, costs.rows[key])))
    if not rows:
        return ["No VMs lived in that time."]
    rows.append(("total", *([""] if costs.by is By.job else []), *_cells(costs, costs.total)))
    return table([*heads, *(Column(name, right=True) for name in names)], rows, style)


def _cells(costs: Costs, row: Row) -> tuple[str, ...]:
    sums = [row.on_demand, row.spot, row.disk, row.address, *([] if costs.by is By.job else [row.idle]), row.total]
    return (f"{row.hours:.2f}", *(money(dollars) for dollars in sums))


def _heading(costs: Costs, key: str) -> str:
    if costs.by is By.day:
        return dt.datetime.fromtimestamp(int(key) * DAY, dt.UTC).date().isoformat()
    return key or IDLE


def _order(costs: Costs) -> list[str]:
    """Days by date; else what cost most comes first, and idle time last."""
    if costs.by is By.day:
        return sorted(costs.rows, key=int)
    return sorted(costs.rows, key=lambda key: (not key, -costs.rows[key].total, key))


def costs_notes(costs: Costs) -> list[str]:
    """What the sums do not hold."""
    total, notes = costs.total, []
    for hours, what in (
        (total.unpriced, "machines"),
        (total.unpriced_disk, "disks"),
        (total.unpriced_address, "public addresses"),
    ):
        if hours:
            notes.append(f"not in it: {hours:.2f} hours of {what} whose price is not known")
    if costs.unreadable:
        notes.append(f"not in it: {count(costs.unreadable, 'VM')} whose journal cannot be trusted")
    return notes
