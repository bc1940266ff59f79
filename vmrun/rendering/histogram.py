"""The histogram: how many tasks took how long."""

from __future__ import annotations

from typing import Any

import numpy as np

from vmrun.core.blocks import Status
from vmrun.watch.timeline import Timeline

from .palette import COLORS
from .text import axis_unit, seconds_text

#: Bars at most.
BINS = 60
#: The longest time over the shortest from which on times are drawn to a logarithmic scale, and the counts, the
#: highest bar over the lowest.
WIDE, HIGH = 30.0, 200.0
#: Seconds: shorter ones are not told apart.
_SHORTEST = 1e-7
#: Where in the picture labels go to the left of what they name.
_LABEL_LEFT_FROM = 0.8
#: Seconds that a logarithmic scale is labelled with: as many as there is room for.
_TICKS_MAX = 12
_MINUTES = (60.0, 300.0, 1800.0, 7200.0, 36000.0, 172800.0, 864000.0)
_DECADES = [10.0**power for power in range(-7, 2)] + [60.0, 600.0, 3600.0, 36000.0, 360000.0]
_STEPS = [step * 10.0**power for power in range(-7, 1) for step in (1, 2, 5)] + [10.0, 20.0, *_MINUTES]


def draw_histogram(axes: Any, timeline: Timeline) -> None:
    """Bars by time, stacked by how tasks ended, with the median and the 95th percentile marked."""
    seconds = np.maximum(np.frombuffer(timeline.seconds, dtype=np.float32).astype(np.float64), _SHORTEST)
    status = np.frombuffer(timeline.status, dtype=np.uint8)
    edges, wide = _edges(seconds)
    kinds = [kind for kind in COLORS if (status == kind).any()]
    counts = [np.histogram(seconds[status == kind], edges)[0] for kind in kinds]
    total = np.sum(counts, axis=0)
    below = np.zeros(len(total))
    for kind, number in zip(kinds, counts, strict=True):
        axes.stairs(below + number, edges, baseline=below, fill=True, color=COLORS[Status(kind)])
        below = below + number
    axes.set_xlim(edges[0], edges[-1])
    if wide:
        axes.set_xscale("log")
        axes.set_xticks(ticks := _ticks(edges[0], edges[-1]), labels=[_tick_text(tick) for tick in ticks])
        axes.xaxis.set_minor_formatter(lambda _value, _position: "")
        axes.set_xlabel("time that a task took")
    else:
        scale, unit = axis_unit(edges[-1])
        axes.xaxis.set_major_formatter(lambda value, _position: f"{value / scale:.6g}")
        axes.set_xlabel(f"time that a task took, in {unit}")
    if total.max() / total[total > 0].min() > HIGH:
        axes.set_yscale("log")
        axes.set_ylim(0.7, total.max() * 2.2)
    else:
        axes.set_ylim(0, total.max() * 1.18)
        axes.yaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.set_major_formatter(lambda value, _position: f"{value:,.0f}" if value == int(value) else "")
    axes.set_ylabel("tasks")
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    _mark(axes, timeline)


def _edges(seconds: Any) -> tuple[Any, bool]:
    """Edges of the bars, and whether they are logarithmic."""
    least, most = float(seconds.min()), float(seconds.max())
    bins = int(np.clip(np.sqrt(len(seconds)) * 2, 10, BINS))
    if most / least > WIDE:
        return np.geomspace(least * 0.98, most * 1.02, bins + 1), True
    room = max((most - least) * 0.02, most * 0.1 - (most - least) / 2)
    return np.linspace(max(0.0, least - room), most + room, bins + 1), False


def _mark(axes: Any, timeline: Timeline) -> None:
    spread = timeline.stats.seconds
    for line, (name, value) in enumerate((("median", spread.median), ("p95", spread.p95))):
        if value <= 0:
            continue
        axes.axvline(value, color="#222222", linewidth=0.9, linestyle=(0, (4, 3)))
        where = axes.transAxes.inverted().transform(axes.transData.transform((value, 1.0)))[0]
        left = where > _LABEL_LEFT_FROM
        axes.annotate(
            f"{name} {seconds_text(value)}",
            (value, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(-4 if left else 4, -2 - 13 * line),
            textcoords="offset points",
            ha="right" if left else "left",
            va="top",
            size=8.5,
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
        )


def _ticks(least: float, most: float) -> list[float]:
    """Round times between two, evenly apart on a logarithmic scale or nearly so."""
    for steps in (_STEPS, _DECADES):
        found = [step for step in steps if least <= step <= most]
        if len(found) <= _TICKS_MAX:
            break
    return found


def _tick_text(seconds: float) -> str:
    """Without the zeros that say how exact a measured time is."""
    number, _, unit = seconds_text(seconds).partition(" ")
    if unit in ("s", "ms", "µs", "ns"):
        return f"{float(number):g} {unit}"
    # `5m 00s`
    return number if unit in ("00s", "00m", "00h") else f"{number} {unit}"
