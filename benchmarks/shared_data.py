"""Large data: the memory of all workers that read one shared array, and the rate of large results.

The array is summed by every worker, all at once; then each says its proportional set size, which counts a page that
four workers share as a quarter for each. The results are timed from the start of the first task until the job is
final, against one process that writes the same bytes to a store of the same kind in the same directory. The start of
the job is told apart.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import harness
import numpy as np

WORKERS = 4
#: Bytes of the shared array; results, and bytes of each.
ARRAY, RESULTS, RESULT = 1_000_000_000, 32, 10_000_000
#: Most that all workers together may take, and least share of the plain rate.
MEMORY_LIMIT, RATE_LIMIT = 1.3, 0.8
LIMIT = 600
_given: Any = None


# --- what runs in workers ---


def proportional() -> int:
    """Bytes of this process's memory, pages that others share divided among them."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def meet(folder: str) -> None:
    """Wait until all workers have come here."""
    (Path(folder) / str(os.getpid())).touch()
    deadline = time.monotonic() + LIMIT
    while len(os.listdir(folder)) < WORKERS:
        assert time.monotonic() < deadline, "some worker never came"
        time.sleep(0.01)  # noqa: TID251


def total_and_memory(array: Any, folder: str) -> tuple[float, int]:
    """The sum of the array, and the memory of this process while all others have read it too."""
    total = float(array.sum())
    meet(f"{folder}/read")
    found = total, proportional()
    meet(f"{folder}/measured")
    return found


def in_vmrun(folder: str) -> tuple[float, int]:
    import vmrun

    return total_and_memory(vmrun.shared(), folder)


def in_pool(folder: str) -> tuple[float, int]:
    return total_and_memory(_given, folder)


def give(array: Any) -> None:
    """Initializer of a pool's workers."""
    global _given  # noqa: PLW0603
    _given = array


def large(seed: int) -> Any:
    """A result that takes no time to speak of to make."""
    return np.full(RESULT // 8, seed)


# --- memory ---


def measure_memory(run: Callable[[str], list[tuple[float, int]]], expected: float) -> tuple[int, float]:
    """Bytes of all workers, and seconds."""
    with tempfile.TemporaryDirectory(prefix="vmrun-bench-") as folder:
        for name in ("read", "measured"):
            (Path(folder) / name).mkdir()
        began = time.perf_counter()
        found = run(folder)
        seconds = time.perf_counter() - began
    assert [total for total, _ in found] == [expected] * WORKERS, "a worker has read something else"
    return sum(memory for _, memory in found), seconds


def shared_by_vmrun(array: Any) -> Callable[[str], list[tuple[float, int]]]:
    import vmrun

    return lambda folder: list(vmrun.submit(in_vmrun, [folder] * WORKERS, shared=array, workers=WORKERS).results())


def given_to_pool(array: Any, method: str) -> Callable[[str], list[tuple[float, int]]]:
    def run(folder: str) -> list[tuple[float, int]]:
        context = multiprocessing.get_context(method)
        with ProcessPoolExecutor(WORKERS, context, give, (array,)) as pool:
            return list(pool.map(in_pool, [folder] * WORKERS))

    return run


def mapped_by_joblib(array: Any) -> Callable[[str], list[tuple[float, int]]] | None:
    try:
        import joblib
    except ImportError:
        return None

    def run(folder: str) -> list[tuple[float, int]]:
        calls = (joblib.delayed(total_and_memory)(array, folder) for _ in range(WORKERS))
        return list(joblib.Parallel(WORKERS, batch_size=1, pre_dispatch="all")(calls))

    return run


def memory(size: int) -> bool:
    """Print the table of memory; whether vmrun is within its limit."""
    array = np.ones(size // 8)
    runs = {
        "vmrun shared=": shared_by_vmrun(array),
        "ProcessPoolExecutor, initializer, fork": given_to_pool(array, "fork"),
        "ProcessPoolExecutor, initializer, spawn": given_to_pool(array, "spawn"),
        "joblib, memory-mapped": mapped_by_joblib(array),
    }
    rows, figures = [], {}
    for name, run in runs.items():
        if run is None:
            rows.append((name, "not installed", "", ""))
            continue
        used, seconds = measure_memory(run, float(size // 8))
        figures[name] = {"bytes": used, "seconds": seconds}
        rows.append((name, f"{used / 1e9:.2f} GB", f"x{used / size:.2f}", f"{seconds:.1f} s"))
    print(harness.table((f"{size / 1e9:g} GB array, {WORKERS} workers", "PSS together", "of the array", "took"), rows))
    harness.write("shared-memory", {"array_bytes": size, "workers": WORKERS, "figures": figures})
    return figures["vmrun shared="]["bytes"] <= MEMORY_LIMIT * size


# --- results ---


def rate_of_results(pairs: int) -> bool:
    """Print the comparison of rates; whether vmrun is within its limit."""
    import vmrun
    from vmrun.store.directory import DirectoryStore
    from vmrun.watch.results import ResultReader

    client, starts = vmrun.Client(), []
    bodies = [large(seed).tobytes() for seed in range(RESULTS)]
    seeds = iter(range(1000, 1_000_000))

    def ours() -> float:
        began = time.time()  # noqa: TID251
        inputs = [next(seeds) for _ in range(RESULTS)]
        handle = vmrun.submit(large, inputs, workers=2, keep_warm="5m", client=client)
        handle.wait(LIMIT)
        ended = time.time()  # noqa: TID251
        first = min(outcome.started for outcome in ResultReader(client.desk, handle.id).outcomes())
        starts.append(first - began)
        return ended - first

    def plain() -> float:
        folder = tempfile.mkdtemp(dir=Path.home())
        try:
            store = DirectoryStore(folder)
            began = time.perf_counter()
            for number, body in enumerate(bodies):
                store.write(f"results/{number}", [body])
            return time.perf_counter() - began
        finally:
            shutil.rmtree(folder)

    name, peer = "large-results", "one process writing the same bytes"
    found = harness.compare(name, harness.Side("vmrun", ours), harness.Side(peer, plain), pairs=pairs)
    # The last job does not keep its machine.
    vmrun.submit(large, [0], workers=2, client=client).wait(LIMIT)
    harness.report([found])
    rates = [RESULTS * RESULT / 1e6 / statistics.median(side) for side in (found.our_seconds, found.peer_seconds)]
    print(f"rates: {rates[0]:.0f} MB/s of {rates[1]:.0f} MB/s, {100 / found.ratio:.0f} % (median of pairs)")
    print(f"from submit to the first task, not counted: {statistics.median(starts):.2f} s")
    return 1 / found.ratio >= RATE_LIMIT


def main() -> int:
    parser = harness.arguments(__doc__ or "")
    parser.add_argument("--array", type=int, default=ARRAY, help="bytes of the shared array")
    parser.add_argument("--inside", action="store_true", help="measure in this process and in its own home")
    options = parser.parse_args()
    if options.inside:
        held = memory(options.array)
        print()
        return 0 if rate_of_results(options.pairs) and held else 1
    with tempfile.TemporaryDirectory(prefix="vmrun-bench-", ignore_cleanup_errors=True) as home:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("VMRUN_", "XDG_"))}
        command = [sys.executable, __file__, "--inside", *sys.argv[1:]]
        return subprocess.run(command, env={**environment, "HOME": home}, check=False, timeout=2 * LIMIT).returncode


if __name__ == "__main__":
    sys.exit(main())
