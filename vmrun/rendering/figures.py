"""Pictures of a job: its timeline, and how long its tasks took. Needs matplotlib, which is loaded when one is drawn."""

from __future__ import annotations

import os
import warnings
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmrun.core.errors import UsageError
from vmrun.core.units import format_size
from vmrun.core.views import JobView
from vmrun.watch.timeline import Timeline

from .text import count, seconds_text, shorten, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("timeline", "histogram", "both")
FORMATS = ("png", "svg", "pdf")
#: Inches.
_WIDTH, _HISTOGRAM, _STRIP = 11.0, 3.1, 0.8
_ROW_MOST, _ROW_LEAST, _ROWS_LEAST, _ROWS_MOST = 0.28, 0.045, 0.9, 9.0
_MARGIN_TOP, _MARGIN_LEGEND, _MARGIN_BOTTOM, _GAP = 0.85, 0.22, 0.62, 0.75
_LEFT, _RIGHT = 0.1, 0.975
_DPI = 150
_TITLE_MAX = 60
_LOOKS: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9a9a9a",
    "axes.labelcolor": "#333333",
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "text.color": "#222222",
    "svg.hashsalt": "vmrun",
}


def check_path(path: str) -> str:
    """The format that the ending of `path` means. Raises UsageError for another one."""
    ending = Path(path).suffix.lower().removeprefix(".")
    if ending not in FORMATS:
        raise UsageError(f"-o: {path[:200]!r} is not a picture", hint="name a file that ends in .png, .svg or .pdf")
    return ending


def draw(view: JobView, timeline: Timeline, kind: str, path: str) -> None:
    """Draw into the file `path`, which appears whole or not at all. Raises UsageError when that cannot be."""
    ending = check_path(path)
    looks = _matplotlib()
    if not len(timeline):
        raise UsageError(f"no task of job {view.id} has ended yet", hint=f"`vmrun wait {view.id}`, then plot it")
    temporary = Path(f"{path}.{os.getpid()}.tmp")
    try:
        with looks, warnings.catch_warnings():
            # A name may have signs that no font at hand has; they are drawn as boxes.
            warnings.filterwarnings("ignore", message=r"Glyph .* missing", category=UserWarning)
            figure = _figure(view, timeline, kind)
            metadata = {} if ending == "png" else {"CreationDate" if ending == "pdf" else "Date": None}
            figure.savefig(temporary, format=ending, dpi=_DPI, metadata=metadata)
        temporary.replace(path)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}", hint="name a file that can be written") from error
    finally:
        temporary.unlink(missing_ok=True)


def _matplotlib() -> AbstractContextManager[Any]:
    """Our settings of matplotlib, within which to draw."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise UsageError(
            "plots are drawn by matplotlib, which is not installed here", hint="`pip install 'vmrun[plot]'`"
        ) from error
    return mpl.rc_context(_LOOKS)


def _figure(view: JobView, timeline: Timeline, kind: str) -> Figure:
    from matplotlib.figure import Figure

    from .histogram import draw_histogram
    from .timeline import draw_strip, draw_timeline, legend

    rows = min(max(len(timeline.rows) * _row_height(len(timeline.rows)), _ROWS_LEAST), _ROWS_MOST)
    parts = [] if kind == "histogram" else [_STRIP, rows]
    parts += [] if kind == "timeline" else [_HISTOGRAM]
    gaps = (0.18 if kind != "histogram" else 0.0) + (_GAP if kind == "both" else 0.0)
    colors = legend(timeline)
    above = _MARGIN_TOP + (_MARGIN_LEGEND if colors else 0.0)
    height = above + sum(parts) + gaps + _MARGIN_BOTTOM
    # Not pyplot: no window, no state that outlives this.
    figure = Figure(figsize=(_WIDTH, height))
    _heading(figure, view, timeline, height)
    if colors:
        _explain(figure, colors, 1 - 0.81 / height)
    top = height - above

    def axes(inches: float) -> Any:
        nonlocal top
        top -= inches
        return figure.add_axes((_LEFT, top / height, _RIGHT - _LEFT, inches / height))

    if kind != "histogram":
        strip = axes(_STRIP)
        top -= 0.18
        bars = axes(rows)
        draw_strip(strip, timeline)
        draw_timeline(bars, timeline)
        strip.sharex(bars)
        strip.tick_params(labelbottom=False)
        top -= _GAP
    if kind != "timeline":
        draw_histogram(axes(_HISTOGRAM), timeline)
    return figure


def _row_height(rows: int) -> float:
    return max(_ROW_LEAST, min(_ROW_MOST, _ROWS_MOST / rows))


def _heading(figure: Figure, view: JobView, timeline: Timeline, height: float) -> None:
    stats = timeline.stats
    name = shorten(visible(view.name), _TITLE_MAX) or "job"
    figure.text(_LEFT, 1 - 0.30 / height, name, size=13, weight="bold", va="center", parse_math=False)
    facts = [
        f"{view.state.value}",
        f"{stats.ended:,} of {count(stats.tasks, 'task')}",
        f"{count(stats.workers, 'worker')} for {seconds_text(stats.span)}",
        f"{stats.utilisation:.0%} of their cores used",
        f"peak memory of a worker {format_size(stats.peak_bytes)}",
    ]
    text = "   ·   ".join(facts[: None if stats.peak_bytes else -1])
    figure.text(_LEFT, 1 - 0.56 / height, text, size=9, color="#555555", va="center", parse_math=False)
    figure.text(_RIGHT, 1 - 0.30 / height, view.id, size=7.5, color="#888888", va="center", ha="right")


def _explain(figure: Figure, colors: list[Any], at: float) -> None:
    figure.legend(
        handles=colors,
        loc="center left",
        bbox_to_anchor=(_LEFT - 0.006, at),
        ncols=len(colors),
        frameon=False,
        fontsize=8.5,
        handlelength=1.1,
        handleheight=0.9,
        columnspacing=1.4,
    )
