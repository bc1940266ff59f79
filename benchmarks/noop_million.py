"""A million tasks that do nothing: seconds and peak memory of client and agent, beside ten and a hundred thousand.

What is looked for is growth: ten times the tasks should cost far less than ten times the memory. Each size runs in
a process and a store of its own, so that one peak does not hide another's.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import harness

SIZES = (10_000, 100_000, 1_000_000)
#: Seconds that one size may take.
LIMIT = 900


def noop(number: int) -> int:
    """Nothing, and the number to check it by."""
    return number


def agent_peak(client: Any) -> int:
    """Peak resident bytes of the agent, as it said with its last sign of life; 0 if it said nothing.

    The store of this run has known one agent only. Its heartbeat's first line is JSON.
    """
    from vmrun.core import keys

    peaks = [0]
    for one in client.blobs.list(keys.heartbeat("")):
        head = json.loads(client.blobs.get(one.key).partition(b"\n")[0])
        peaks.append(int(head["data"].get("agent_memory", 0)))
    return max(peaks)


def run_one(size: int) -> dict[str, Any]:
    """Submit `size` tasks, wait, read and check every result; figures of this process and of the agent."""
    import vmrun

    submit, client = vmrun.submit, vmrun.Client()
    began = time.perf_counter()
    handle = submit(noop, range(size), on="local", client=client)
    submitted = time.perf_counter()
    handle.wait(timeout=LIMIT)
    ran = time.perf_counter()
    results = list(handle.results())
    read = time.perf_counter()
    assert results == list(range(size)), "a result is missing or in the wrong place"
    return {
        "tasks": size,
        "submit_seconds": submitted - began,
        "run_seconds": ran - submitted,
        "read_seconds": read - ran,
        "seconds": read - began,
        "client_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "agent_peak_bytes": agent_peak(client),
    }


def in_own_process(size: int) -> dict[str, Any]:
    """`run_one` in a fresh interpreter with an empty home and store."""
    with tempfile.TemporaryDirectory(prefix="vmrun-bench-", ignore_cleanup_errors=True) as home:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("VMRUN_", "XDG_"))}
        command = [sys.executable, __file__, "--one", str(size)]
        done = subprocess.run(
            command,
            env={**environment, "HOME": home},
            cwd=Path(__file__).parent,
            stdout=subprocess.PIPE,
            timeout=LIMIT + 60,
            check=True,
        )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def median(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of each figure of several runs of one size."""
    return {name: type(value)(statistics.median(one[name] for one in runs)) for name, value in runs[0].items()}


def show(figures: list[dict[str, Any]]) -> None:
    """The table, and the growth from each size to the next."""
    mega = 1_000_000
    rows = []
    for at, one in enumerate(figures):
        before = figures[at - 1] if at else one
        growth = one["client_peak_bytes"] / before["client_peak_bytes"]
        agent = one["agent_peak_bytes"] / before["agent_peak_bytes"] if before["agent_peak_bytes"] else 0.0
        rows.append(
            (
                f"{one['tasks']:,}",
                *(f"{one[name]:.2f} s" for name in ("submit_seconds", "run_seconds", "read_seconds", "seconds")),
                f"{one['tasks'] / one['seconds']:,.0f}/s",
                f"{one['client_peak_bytes'] / mega:.0f} MB",
                f"x{growth:.2f}",
                f"{one['agent_peak_bytes'] / mega:.0f} MB",
                f"x{agent:.2f}",
            )
        )
    header = ("tasks", "submit", "run", "read", "all", "rate", "client peak", "growth", "agent peak", "growth")
    print(harness.table(header, rows))


def main() -> None:
    parser = harness.arguments(__doc__ or "")
    parser.add_argument("--one", type=int, help="run this size in this process and print its figures as JSON")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(run_one(options.one)))
        return
    figures = [in_own_process(size) for size in options.sizes]
    show(figures)
    harness.write("noop-million", {"sizes": figures})


if __name__ == "__main__":
    main()
