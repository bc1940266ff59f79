"""Colours of what tasks ended with."""

from __future__ import annotations

from vmrun.core.blocks import Status

#: Two tones that take turns, so that a task can be told from the next.
OK, OK_LIGHT = "#33658a", "#5a8fb8"
COLORS = {
    Status.ok: OK,
    Status.raised: "#d1495b",
    Status.exited: "#e07a1f",
    Status.signalled: "#7d3c98",
    Status.timeout: "#d4a300",
    Status.oom: "#7b1e1e",
    Status.unpicklable: "#8d6e4a",
    Status.cancelled: "#9aa0a6",
    Status.lost: "#3c3c3c",
}
