"""The parts of the benchmark that are no race over a workload: memory, bytes, growth, many workers, round trips."""

from __future__ import annotations

import contextlib
import ipaddress
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import contest
import figures
import harness
import noop_million
from contest import Contestant, Session, Stage, Standing, Workload
from environments import NotInstalled, python_of
from figures import Figure
from process import Driver, DriverFailed, Hung
from suite import ENGINE, WARM

MEGA = 1_000_000
#: Calls in a row, and how often; of slower systems fewer.
CALLS, ROUNDS, FEWER = 500, 3, 30
#: So many times as many rounds where bytes are written: a rented machine's disk is twice as fast for the first seconds.
LONGER = 3
#: Seconds that a row of calls may take before it counts as hung.
CALLS_LIMIT = 120.0

SHARING = Session(
    "shared",
    WARM,
    (
        Contestant(WARM, "vmrun-job", "vmrun", options={"keep_warm": "10m"}),
        Contestant("ProcessPoolExecutor, a global before the fork", "executor", "stdlib"),
        Contestant("multiprocessing.Pool, a global before the fork", "pool", "stdlib"),
        Contestant("joblib, memory-mapped by itself", "joblib", "joblib"),
        Contestant("Dask, scattered", "dask", "dask"),
        Contestant("Ray, put", "ray", "ray"),
        Contestant("Lithops, held by the function", "lithops", "lithops", reduced={"shared": 2}),
    ),
)


def shared(pairs: int, *, quick: bool) -> Iterator[Figure]:
    """One array that all workers read: seconds, and what all processes have in memory at the worst moment."""
    workload = Workload("shared", "shared", 8, 100 * MEGA if quick else 1_000 * MEGA)
    with Stage(SHARING) as stage:
        standings = stage.compete(workload, pairs)
        rows, peaks = [], {}
        for one in standings:
            row = [one.label, f"{one.tasks}", f"{one.seconds:.2f} s" if one.runs else one.problem[:60], "", ""]
            if one.runs:
                peaks[one.label] = together, everything = _peaks(stage.drivers[one.label], one, workload)
                row[3:] = [f"{together / MEGA:,.0f} MB", f"{everything / MEGA:,.0f} MB"]
            rows.append(row)
    print(f"one array of {workload.size / MEGA:,.0f} MB, read by every task")
    print(harness.table(("", "tasks", "run", "workers together", "all processes"), rows))
    harness.write("shared", {"size": workload.size, "standings": [asdict(one) for one in standings], "peaks": peaks})
    if WARM in peaks:
        others = ", ".join(f"{label.split(',')[0]} {peak[0] / MEGA:,.0f}" for label, peak in peaks.items())
        yield Figure("shared: vmrun, workers together", peaks[WARM][0], f"workers' MB: {others}")


def _peaks(driver: Driver, one: Standing, workload: Workload) -> tuple[int, int]:
    """Peak bytes of the workers together, and of all processes, in one more run that is watched."""
    with driver.memory() as samples:
        found = driver.ask(
            "run", contest.RUN_LIMIT, workload=workload.load, count=one.tasks, size=workload.size, chunk=one.chunk
        )
    return figures.peak_together(samples, found["pids"]), figures.peak_together(samples)


def result_bytes(pairs: int, *, quick: bool) -> Iterator[Figure]:
    """Results of 10 MB on their way into the store, against one process that writes as many bytes there."""
    count, size = (4 if quick else 32), 10 * MEGA
    ours, plain = [], []
    with Driver("vmrun-job", python_of("vmrun")) as driver:
        driver.start(contest.WORKERS, keep_warm="10m")
        for number in range(pairs * LONGER + 1):
            for which in figures.rotated(("committed", "plain_writes"), number):
                if which == "committed":
                    reply = driver.ask("ask", 120, what=which, **{"with": {"name": "results", "count": count}})
                    ours.append(reply["seconds"])
                else:
                    reply = driver.ask("ask", 120, what=which, **{"with": {"size": size, "count": count}})
                    plain.append(reply["seconds"])
    share = figures.ratio(plain[1:], ours[1:])
    rates = [count * size / MEGA / statistics.median(seconds[1:]) for seconds in (ours, plain)]
    each = [theirs / mine for theirs, mine in zip(plain[1:], ours[1:], strict=True)]
    note = (
        f"{rates[0]:,.0f} MB/s from first start to the job's end, against {rates[1]:,.0f} MB/s; "
        f"{min(each):.0%} to {max(each):.0%} by round"
    )
    print(f"{count} results of 10 MB: {note}; {share:.0%}")
    harness.write("bytes", {"seconds": ours[1:], "plain_seconds": plain[1:], "share": share})
    yield Figure("results: vmrun against plain writes", share, note)


def million(pairs: int, *, quick: bool) -> Iterator[Figure]:
    """Seconds and memory at ten thousand, a hundred thousand and a million tasks, end to end and engine alone."""
    sizes = (1_000, 10_000, 20_000) if quick else noop_million.SIZES
    runs: dict[int, list[dict[str, Any]]] = {size: [] for size in sizes}
    for number in range(pairs):
        for size in figures.rotated(sizes, number):
            runs[size].append(noop_million.in_own_process(size))
    found = [noop_million.median(runs[size]) for size in sizes]
    noop_million.show(found)
    first, middle, last = (one["seconds"] / one["tasks"] for one in found)
    small, large = ([one["seconds"] / one["tasks"] for one in runs[size]] for size in (sizes[0], sizes[-1]))
    note = (
        f"{first * MEGA:.1f}, {middle * MEGA:.1f}, {last * MEGA:.1f} µs a task at {', '.join(f'{n:,}' for n in sizes)}"
    )
    yield Figure("growth of cost per task", figures.ratio(large, small), f"{note}, {pairs} rounds")
    for who in ("client", "agent"):
        peaks = [one[f"{who}_peak_bytes"] for one in found]
        note = " MB, ".join(f"{peak / MEGA:,.0f}" for peak in peaks) + " MB"
        yield Figure(f"growth of the {who}'s memory", peaks[-1] / max(1, peaks[-2]), note)
    alone = _engine_growth(sizes[0], sizes[-1], rounds=1 if quick else pairs)
    harness.write("noop-million", {"sizes": found, "engine_seconds_per_task": alone})
    note = f"{alone[0] * MEGA:.2f} and {alone[1] * MEGA:.2f} µs a task"
    yield Figure("growth of cost per task, engine alone", alone[1] / alone[0], note)


def _engine_growth(small: int, large: int, rounds: int) -> tuple[float, float]:
    """Median seconds per task of the engine alone at both sizes; as many tasks of the small as there is time for."""
    times: dict[int, list[float]] = {small: [], large: []}
    with Driver("vmrun-engine", python_of("vmrun")) as driver:
        driver.start(contest.WORKERS)
        for _ in range(rounds):
            for size, repeat in ((small, 5), (large, 1)):
                for _ in range(repeat):
                    reply = driver.ask("run", contest.RUN_LIMIT, workload="noops", count=size)
                    times[size].append(reply["seconds"] / size)
    return statistics.median(times[small]), statistics.median(times[large])


def many_workers(pairs: int, *, quick: bool) -> Iterator[Figure]:
    """128 workers with sleeping tasks: what a machine with that many cores would pay for keeping them at work."""
    workers, tasks, seconds = (16, 64, 0.5) if quick else (128, 1_280, 1.0)
    rows = []
    for label, system, options in (
        (ENGINE, "vmrun-engine", {}),
        (WARM, "vmrun-job", {"keep_warm": "10m"}),
    ):
        with Driver(system, python_of("vmrun")) as driver:
            driver.start(workers, **options)
            runs = [
                driver.ask("ask", 120, what="many_workers", **{"with": {"tasks": tasks, "seconds": seconds}})
                for _ in range(pairs)
            ]
        span = statistics.median(run["first_to_last_start"] for run in runs)
        share = statistics.median(run["cpu_seconds"] / run["first_to_last_start"] for run in runs)
        whole = statistics.median(run["first_start_to_end"] for run in runs)
        rows.append((label, len(runs), f"{span:.2f} s", f"{whole:.2f} s", f"{share:.1%}"))
        suffix = "" if label == ENGINE else ", with its agent"
        ideal = tasks // workers * seconds
        yield Figure(f"{workers} workers: first to last start{suffix}", span, f"{ideal - seconds:.0f} s at best")
        yield Figure(f"{workers} workers: dispatch{suffix}", share, f"{len(runs)} runs")
    print(f"{tasks:,} sleeping tasks of {seconds} s on {workers} workers")
    print(harness.table(("", "runs", "first to last start", "first start to end", "share of a core"), rows))
    harness.write("workers", {"workers": workers, "tasks": tasks, "rows": rows})


CALLERS = (
    Contestant("vmrun.Executor", "vmrun-executor", "vmrun"),
    Contestant("ProcessPoolExecutor", "executor", "stdlib"),
    Contestant("joblib", "joblib", "joblib"),
    Contestant("Dask", "dask", "dask"),
    Contestant("Ray", "ray", "ray"),
    Contestant("Lithops", "lithops", "lithops"),
)


def round_trip(*, quick: bool) -> Iterator[Figure]:
    """One call after the other, each waited for; every system alone on the machine."""
    rows, medians = [], {}
    hung = 0
    for one in CALLERS:
        ours = one is CALLERS[0]
        count = (50 if ours else 5) if quick else (CALLS if ours else FEWER)
        rounds = ROUNDS if ours else 1
        try:
            seconds, stuck = _calls(one, count, rounds)
        except (NotInstalled, DriverFailed) as reason:
            rows.append((one.label, f"{count}", str(reason).splitlines()[0], "", ""))
            continue
        hung += stuck if ours else 0
        if seconds:
            medians[one.label] = statistics.median(seconds)
            worst = max(seconds)
            rows.append(
                (one.label, f"{rounds} x {count}", f"{medians[one.label] * 1e3:.2f} ms", f"{worst * 1e3:.0f} ms", stuck)
            )
        else:
            rows.append((one.label, f"{rounds} x {count}", "", "", stuck))
    remote, problem = _docker_calls(5 if quick else 50)
    rows.append(
        (
            "vmrun.Executor, Docker and S3",
            len(remote),
            f"{statistics.median(remote) * 1e3:.0f} ms" if remote else problem,
            "",
            "",
        )
    )
    print("round trip of one call")
    print(harness.table(("", "calls", "median", "longest", "rows that hung"), rows))
    harness.write("round-trip", {"medians": medians, "docker": remote, "docker_problem": problem})
    if "vmrun.Executor" in medians:
        mine = medians["vmrun.Executor"]
        yield Figure("round trip: local", mine)
        if "Lithops" in medians:
            yield Figure("round trip: against Lithops", medians["Lithops"] / mine, f"{medians['Lithops'] * 1e3:.0f} ms")
    if remote:
        yield Figure("round trip: Docker and S3", statistics.median(remote), f"{len(remote)} calls")
    yield Figure("calls that hung", hung, f"{ROUNDS} x {50 if quick else CALLS} calls")


def _calls(one: Contestant, count: int, rounds: int) -> tuple[list[float], int]:
    """Seconds of each call, and how many rows of calls did not come to an end."""
    seconds: list[float] = []
    stuck = 0
    for _ in range(rounds):
        with Driver(one.system, python_of(one.environment)) as driver:
            driver.start(contest.WORKERS, **one.options)
            try:
                seconds += driver.ask("calls", CALLS_LIMIT, count=count)["seconds"]
            except Hung:
                stuck += 1
    return seconds, stuck


def _docker_calls(count: int) -> tuple[list[float], str]:
    """Seconds of each call to a machine on Docker, over a store behind the S3 API; or none, and why."""
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode
    ):
        return [], "not measured: no Docker Engine answers"
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    try:
        from tests.support.s3 import BUCKET, s3_server
    finally:
        del sys.path[0]
    shown = ["docker", "network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Subnet}}"]
    subnet = subprocess.run(shown, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    with contextlib.ExitStack() as stack:
        # An S3 client is a part of the project's own environment only.
        driver = stack.enter_context(Driver("vmrun-executor", sys.executable))
        host = str(ipaddress.ip_network(subnet)[1])
        server = stack.enter_context(s3_server(host, driver.place / "s3.log"))
        (driver.place / "vmrun.toml").write_text(
            f'[store]\nurl = "s3://{BUCKET}/benchmark"\nendpoint = "{server.endpoint}"\nregion = "us-east-1"\n'
            'access_key_id = "testing"\nsecret_access_key = "benchmark"\n',
            encoding="utf-8",
        )
        try:
            driver.start(contest.WORKERS, limit=600.0, on="docker")
            return driver.ask("calls", CALLS_LIMIT, count=count)["seconds"], ""
        except DriverFailed as reason:
            return [], f"not measured: {reason}".splitlines()[0]
        finally:
            driver.close()
