"""Paired measurements: ours and a peer's in one run, turn by turn, compared by ratio.

A figure in seconds says as much about the machine and its neighbours as about the program; a ratio of two runs that
stood side by side says something about the program. So: a warm-up of each, then pairs whose order alternates, the
ratio of each pair, and the median of those. What is written down includes the machine that it was measured on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
#: Fewer pairs than this say nothing about spread.
PAIRS = 5
#: Runs something once; gives its seconds, or None to let the harness take the wall time of the call.
Run = Callable[[], float | None]


@dataclass(frozen=True)
class Side:
    """One of the two that are compared."""

    label: str
    run: Run


@dataclass
class Comparison:
    """Seconds of each pair, and what follows from them."""

    name: str
    ours: str
    peer: str
    our_seconds: list[float] = field(default_factory=list)
    peer_seconds: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """Ours over the peer's, pair by pair; below 1 is faster than the peer."""
        return [a / b for a, b in zip(self.our_seconds, self.peer_seconds, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the pairs' ratios."""
        return statistics.median(self.ratios)


def compare(name: str, ours: Side, peer: Side, *, pairs: int = PAIRS, warm_up: int = 1) -> Comparison:
    """Run both in turn, `pairs` times after `warm_up` unmeasured rounds; who goes first alternates."""
    for _ in range(warm_up):
        ours.run()
        peer.run()
    found = Comparison(name, ours.label, peer.label)
    for number in range(max(pairs, PAIRS)):
        sides = [(found.our_seconds, ours), (found.peer_seconds, peer)]
        for seconds, side in sides if number % 2 == 0 else reversed(sides):
            seconds.append(measure(side.run))
        print(f"  pair {number + 1}: {found.ratios[-1]:.3f}", file=sys.stderr)
    return found


def measure(run: Run) -> float:
    """Seconds of one run."""
    began = time.perf_counter()
    own = run()
    return time.perf_counter() - began if own is None else own


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
    }


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows as text, first column to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(header))]
    lines = []
    for first, *others in cells:
        right = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *right]))
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def report(comparisons: Sequence[Comparison]) -> None:
    """Print a table of comparisons and write them to `results/`."""
    rows = [
        (
            one.name,
            f"{statistics.median(one.our_seconds):.3f} s",
            f"{statistics.median(one.peer_seconds):.3f} s",
            f"{one.ratio:.2f}",
            f"{min(one.ratios):.2f}..{max(one.ratios):.2f}",
        )
        for one in comparisons
    ]
    print(table(("benchmark", "vmrun", "peer", "ratio", "range"), rows))
    print("peers: " + "; ".join(f"{one.name}: {one.peer}" for one in comparisons))
    for one in comparisons:
        write(one.name, {**asdict(one), "ratios": one.ratios, "ratio": one.ratio})


def write(name: str, figures: dict[str, Any]) -> Path:
    """Keep figures and machine as `results/NAME.json`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    taken = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    path.write_text(json.dumps({"schema": 1, "taken": taken, "machine": machine(), **figures}, indent=2) + "\n")
    return path


def arguments(description: str) -> argparse.ArgumentParser:
    """The options that all benchmarks share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--pairs", type=int, default=PAIRS, help=f"measured pairs, at least {PAIRS}")
    return parser
