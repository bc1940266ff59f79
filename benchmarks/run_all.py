"""Runs the benchmarks: all of them, or the parts that are named.

    run_all.py                         everything; about half an hour on two quiet cores
    run_all.py --quick                 small sizes and two rounds: shows that each part runs, measures nothing
    run_all.py engine noops-10k        one session over one workload
    run_all.py isolation               the isolation table alone

A missed target is printed, not an error, unless `--strict` is given. A part that fails is an error; the others run.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import figures
import harness
import isolation
import machine_parts
import reaper_pass
import suite
import warm_start
from figures import FAIL, Figure, Judgement
from targets import TARGETS

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Options:
    """How to run."""

    pairs: int
    quick: bool


def script(name: str) -> Callable[[Options], Iterable[Figure]]:
    """A benchmark that is a program of its own, with a table of its own."""

    def run(_: Options) -> Iterable[Figure]:
        subprocess.run([sys.executable, str(HERE / name)], check=True, timeout=900)
        return ()

    return run


#: Parts beside the sessions of `suite`, in the order in which they run.
PARTS: dict[str, Callable[[Options], Iterable[Figure]]] = {
    "shared": lambda how: machine_parts.shared(how.pairs, quick=how.quick),
    "bytes": lambda how: machine_parts.result_bytes(how.pairs, quick=how.quick),
    "million": lambda how: machine_parts.million(how.pairs, quick=how.quick),
    "workers": lambda how: machine_parts.many_workers(how.pairs, quick=how.quick),
    "round-trip": lambda how: machine_parts.round_trip(quick=how.quick),
    "isolation": lambda how: isolation.measure(quick=how.quick),
    "reaper": lambda how: reaper_pass.measure(quick=how.quick),
    "warm-start": lambda how: warm_start.measure(quick=how.quick),
    "cli": script("cli_start.py"),
    "flights": script("flights_vs_pool.py"),
}
SESSIONS = tuple(session.name for session in suite.SESSIONS)
WORKLOADS = tuple(workload.name for workload in suite.FULL)


def chosen(words: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Sessions, workloads and other parts that the words of the command line ask for. Raises ValueError."""
    unknown = [word for word in words if word not in (*SESSIONS, *WORKLOADS, *PARTS)]
    if unknown:
        known = ", ".join((*SESSIONS, *WORKLOADS, *PARTS))
        raise ValueError(f"no part is called {', '.join(unknown)}; there are {known}")
    sessions = [name for name in SESSIONS if name in words]
    workloads = [name for name in WORKLOADS if name in words]
    parts = [name for name in PARTS if name in words]
    if not words:
        return list(SESSIONS), list(WORKLOADS), list(PARTS)
    if sessions or workloads:
        return sessions or list(SESSIONS), workloads or list(WORKLOADS), parts
    return [], [], parts


def collect(runs: Iterable[tuple[str, Callable[[], Iterable[Figure]]]]) -> tuple[list[Figure], list[str]]:
    """Figures of all that ran, and the names of what failed; a failure ends its own part only."""
    found: list[Figure] = []
    failed = []
    for name, run in runs:
        began = time.monotonic()
        print(f"\n==== {name}", flush=True)
        try:
            for figure in run():
                found.append(figure)  # noqa: PERF402  what came before a failure counts
        except Exception:  # noqa: BLE001  one part must not take the others with it
            traceback.print_exc()
            failed.append(name)
        print(f"==== {name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return found, failed


def show(judgements: Sequence[Judgement]) -> str:
    """The targets, what was measured, and whether that is enough."""
    rows = [
        (
            one.target.what,
            f"{one.target.sense} {unit(one.target.limit, one.target.unit)}",
            unit(one.figure.value, one.target.unit) if one.figure else "",
            one.verdict,
            one.figure.note if one.figure else "",
        )
        for one in judgements
    ]
    return harness.table(("target", "limit", "measured", "verdict", "note"), rows)


def unit(value: float, name: str) -> str:
    """A value with its unit, as people write it."""
    if name == "%":
        return f"{value:.1%}"
    if name == "bytes":
        return f"{value / 1e6:,.0f} MB"
    if name == "s":
        return f"{value:.3f} s"
    if name == "x":
        return f"{value:,.2f} x" if value < 100 else f"{value:,.0f} x"
    return f"{value:,.0f} {name}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="PART", help=", ".join((*SESSIONS, *WORKLOADS, *PARTS)))
    parser.add_argument("--pairs", type=int, default=harness.PAIRS, help=f"rounds, at least {harness.PAIRS}")
    parser.add_argument("--quick", action="store_true", help="small sizes, two rounds")
    parser.add_argument("--strict", action="store_true", help="a missed target is an error")
    asked = parser.parse_args()
    try:
        sessions, workloads, parts = chosen(asked.words)
    except ValueError as error:
        parser.error(str(error))
    # Whoever ends this with `kill` or `timeout` wants the drivers ended, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    how = Options(2 if asked.quick else max(asked.pairs, harness.PAIRS), asked.quick)
    runs: list[tuple[str, Callable[[], Iterable[Figure]]]] = [
        (name, lambda name=name: suite.measure([name], workloads, how.pairs, quick=how.quick))  # type: ignore[misc]
        for name in sessions
    ]
    runs += [(name, lambda name=name: PARTS[name](how)) for name in parts]  # type: ignore[misc]
    found, failed = collect(runs)
    judgements = figures.judge(TARGETS, found)
    if asked.words:
        judgements = [one for one in judgements if one.figure]
    title = "targets (--quick: the sizes are too small to tell anything)" if how.quick else "targets"
    print(f"\n{title}\n{show(judgements)}")
    rows = [{**asdict(one), "verdict": one.verdict} for one in judgements]
    harness.write("summary", {"quick": how.quick, "targets": rows, "figures": [asdict(one) for one in found]})
    missed = [one for one in judgements if one.verdict == FAIL]
    if failed:
        print(f"\nparts that failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed or (asked.strict and missed) else 0


if __name__ == "__main__":
    sys.exit(main())
