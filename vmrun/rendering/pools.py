"""Pools of VMs that wait for jobs, as lines of text."""

from __future__ import annotations

from collections.abc import Sequence

from vmrun.core.views import PoolView

from .tables import Column, table
from .text import Style, count, ends, visible

_POOLS = (
    Column("POOL"),
    Column("STATE"),
    Column("ON"),
    Column("VMS", flexible=True),
    Column("SCHEDULE", flexible=True),
    Column("ENDS", flexible=True),
)


def pools(views: Sequence[PoolView], now: float, style: Style) -> list[str]:
    """Pools, one a row: how many VMs of those that are wanted there are, and what they do."""
    rows = [
        (view.name, view.state, visible(view.on), vms_text(view), visible(view.schedule), _ends(view, now))
        for view in views
    ]
    return table(_POOLS, rows, style) if rows else []


def vms_text(view: PoolView) -> str:
    """`2/3, 1 busy, 1 starting`."""
    there = view.ready + view.busy
    parts = [f"{there}/{view.size}" if view.size else f"{there} left"]
    parts += [f"{view.busy} busy"] if view.busy else []
    parts += [f"{view.starting} starting"] if view.starting else []
    return ", ".join(parts)


def told(view: PoolView, now: float) -> str:
    """A pool in a sentence."""
    there = f"{count(view.ready + view.busy, 'VM')} of {view.size}"
    if view.state == "up":
        return f"pool {view.name} is up: {there}, which end {ends(view.ends_at, '', now)}"
    if view.state == "waiting":
        return f"pool {view.name} waits: its VMs are made {ends(view.begins_at, '', now)}"
    if view.state == "ended":
        return f"pool {view.name} has ended"
    if view.vms:
        return f"pool {view.name} is down; {count(view.busy, 'VM')} of it works, and ends with its job"
    return f"pool {view.name} is down"


def _ends(view: PoolView, now: float) -> str:
    if view.state == "waiting":
        return f"begins {ends(view.begins_at, '', now)}"
    return ends(view.ends_at, "time of the pool", now) if view.ends_at else ""
