"""The flights job through vmrun on this machine, against a bare ProcessPoolExecutor over the same function.

Two figures, both from submit until the last result is in the client's hands: with a machine that has to be made
first, and with one that an earlier job left warm. The pool is started, used and stopped in either.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import harness

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(EXAMPLES), os.environ.get("PYTHONPATH", ""))))

import flights  # noqa: E402

import vmrun  # noqa: E402

#: Times that the data is gone through in one run, so that there is something to measure.
PASSES = 4


def inputs() -> list[int]:
    return [part for _ in range(PASSES) for part in range(flights.PARTS)]


def measure(part: int) -> list[flights.Measure]:
    """What one task of the example does."""
    return flights.delays(part)


def check(results: list[list[flights.Measure]]) -> None:
    """Every flight was counted, once per pass."""
    counted = sum(group["flights"] for groups in results for group in groups)
    assert counted == 336_776 * PASSES, counted


def through_vmrun(keep_warm: str | None) -> None:
    """Submit, run, read all results."""
    handle = vmrun.submit(measure, inputs(), on="local", keep_warm=keep_warm)
    handle.wait(timeout=600)
    check(list(handle.results()))


def through_pool() -> None:
    """Start a pool, run, stop it."""
    with ProcessPoolExecutor() as pool:
        check(list(pool.map(measure, inputs(), chunksize=8)))


def compare(pairs: int) -> list[harness.Comparison]:
    """Both figures."""
    peer = harness.Side("ProcessPoolExecutor", through_pool)
    cold = harness.Side("vmrun, new machine", functools.partial(through_vmrun, None))
    warm = harness.Side("vmrun, warm machine", functools.partial(through_vmrun, "30s"))
    return [
        harness.compare("flights-vs-pool-cold", cold, peer, pairs=pairs),
        harness.compare("flights-vs-pool-warm", warm, peer, pairs=pairs),
    ]


def main() -> None:
    pairs = harness.arguments(__doc__ or "").parse_args().pairs
    with tempfile.TemporaryDirectory(prefix="vmrun-bench-", ignore_cleanup_errors=True) as home:
        os.environ["HOME"] = home  # a store of its own, and nobody's settings
        for name in [name for name in os.environ if name.startswith(("VMRUN_", "XDG_"))]:
            del os.environ[name]
        harness.report(compare(pairs))


if __name__ == "__main__":
    main()
