"""The timeline: a row for each worker, a bar for each task; of very many tasks, how busy each worker was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from vmrun.core.blocks import Status
from vmrun.watch.timeline import Timeline

from .palette import COLORS, OK, OK_LIGHT
from .text import axis_unit

#: Tasks that are drawn as bars of their own; more are drawn as shares of time.
BARS_MAX = 20_000
#: Columns of the picture that the others become.
COLUMNS = 1800
#: Points of the strip.
STRIP = 600
#: Rows that are labelled at most.
LABELS_MAX = 24
#: Points.
_EDGE, _EDGE_FAILED = 0.25, 1.2


class _Tasks:
    """The columns of a timeline as arrays, in units of its axis, from the first start on."""

    def __init__(self, timeline: Timeline) -> None:
        started = np.frombuffer(timeline.started, dtype=np.float64)
        seconds = np.frombuffer(timeline.seconds, dtype=np.float32).astype(np.float64)
        self.origin = float(started.min())
        span = float((started + seconds).max()) - self.origin
        self.scale, self.unit = axis_unit(span)
        self.span = max(span, 1e-9) / self.scale
        self.start = (started - self.origin) / self.scale
        self.length = seconds / self.scale
        self.row = np.frombuffer(timeline.row, dtype=np.uint32)
        self.status = np.frombuffer(timeline.status, dtype=np.uint8)

    def busy(self, chosen: Any, edges: Any) -> Any:
        """The share of each stretch between two edges in which a worker was in one of its tasks `chosen`."""
        start, length = self.start[chosen], self.length[chosen]
        order = np.argsort(start, kind="stable")
        start, end = start[order], (start + length)[order]
        # A worker does one thing at a time; what clocks say otherwise is noise.
        end[:-1] = np.minimum(end[:-1], start[1:])
        times = np.column_stack((start, end)).ravel()
        spent = np.column_stack((np.concatenate(([0.0], np.cumsum(end - start)[:-1])), np.cumsum(end - start))).ravel()
        return np.diff(np.interp(edges, times, spent)) / np.diff(edges)


def draw_timeline(axes: Any, timeline: Timeline) -> None:
    """Workers from top to bottom, time from left to right."""
    tasks, rows = _Tasks(timeline), len(timeline.rows)
    if len(timeline) <= BARS_MAX:
        _bars(axes, tasks)
    else:
        _shares(axes, tasks, rows)
    axes.set_xlim(0.0, tasks.span * 1.004)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_xlabel(f"{tasks.unit} since the first task began")
    every = -(-rows // LABELS_MAX)
    axes.set_yticks(range(0, rows, every), labels=_labels(timeline)[::every])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _labels(timeline: Timeline) -> list[str]:
    several = len({vm for vm, _ in timeline.rows}) > 1
    return [f"{vm[-6:]} / {worker}" if several else f"worker {worker}" for vm, worker in timeline.rows]


def _bars(axes: Any, tasks: _Tasks) -> None:
    for row in np.unique(tasks.row):
        mine = np.flatnonzero(tasks.row == row)
        mine = mine[np.argsort(tasks.start[mine], kind="stable")]
        for chosen, color in _colored(tasks, mine):
            bars = np.column_stack((tasks.start[chosen], tasks.length[chosen]))
            # An edge of its own colour keeps the shortest task visible, and a failure in any crowd.
            edge = _EDGE if color in (OK, OK_LIGHT) else _EDGE_FAILED
            axes.broken_barh(bars, (row - 0.4, 0.8), facecolors=color, edgecolors=color, linewidth=edge)


def _colored(tasks: _Tasks, mine: Any) -> Iterator[tuple[Any, str]]:
    """The tasks of a worker, in order of their start, by colour; failures last, on top."""
    for turn, color in ((0, OK), (1, OK_LIGHT)):
        chosen = mine[turn::2]
        yield chosen[tasks.status[chosen] == Status.ok], color
    for status, color in COLORS.items():
        if status is not Status.ok:
            yield mine[tasks.status[mine] == status], color


def _shares(axes: Any, tasks: _Tasks, rows: int) -> None:
    from matplotlib.colors import to_rgb

    edges = np.linspace(0.0, tasks.span, COLUMNS + 1)
    image = np.ones((rows, COLUMNS, 3))
    for row in range(rows):
        mine = tasks.row == row
        for status, color in COLORS.items():
            chosen = mine & (tasks.status == status)
            if not chosen.any():
                continue
            share = np.clip(tasks.busy(chosen, edges), 0.0, 1.0)
            if status is not Status.ok:
                # One failure among a thousand tasks must not vanish.
                failed = share > 0
                failed[1:] |= failed[:-1]
                failed[:-1] |= failed[1:]
                share = np.where(failed, 1.0, 0.0)
            image[row] = image[row] * (1 - share[:, None]) + np.array(to_rgb(color)) * share[:, None]
    extent = (0.0, tasks.span, rows - 0.5, -0.5)
    axes.imshow(image, extent=extent, aspect="auto", interpolation="nearest")


def draw_strip(axes: Any, timeline: Timeline) -> None:
    """How many of the workers were in a task."""
    tasks, workers = _Tasks(timeline), max(timeline.stats.workers, 1)
    columns = min(STRIP, max(20, len(timeline) * 4))
    edges = np.linspace(0.0, tasks.span, columns + 1)
    busy = np.zeros(columns)
    for row in range(len(timeline.rows)):
        busy += np.clip(tasks.busy(tasks.row == row, edges), 0.0, 1.0)
    axes.stairs(busy / workers * 100, edges, fill=True, color=OK_LIGHT, alpha=0.55)
    axes.set_ylim(0, 105)
    axes.set_yticks([0, 50, 100], labels=["0", "50", "100 %"])
    axes.set_ylabel("busy\nworkers", rotation=0, ha="right", va="center", labelpad=14, size=8)
    axes.yaxis.set_label_coords(-0.05, 0.5)
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)


def legend(timeline: Timeline) -> list[Any]:
    """What the colours mean; nothing where there is only one."""
    from matplotlib.patches import Patch

    kinds = timeline.stats.kinds
    if set(kinds) <= {"ok"}:
        return []
    return [Patch(color=COLORS[Status[kind]], label=f"{kind} {number:,}") for kind, number in kinds.items()]
