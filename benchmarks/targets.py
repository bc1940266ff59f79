"""What vmrun has to reach, and which figure says so."""

from __future__ import annotations

from figures import Target

_PAIRS = (
    ("ProcessPoolExecutor", "its best chunk size"),
    ("joblib", "as it comes"),
    ("Ray", "a call each"),
    ("Ray, chunked by hand", "its best chunk size"),
    ("Dask", "a call each"),
    ("Dask, chunked by hand", "its best chunk size"),
)

TARGETS = (
    *(
        Target(f"{load}: vmrun engine against {peer}", "at least", 1.0, "x", f"no-ops, engine alone, {peer} ({how})")
        for load in ("noops-10k", "noops-100k")
        for peer, how in _PAIRS
    ),
    Target("noops-100k: vmrun against Ray", "at least", 10.0, "x", "no-ops end to end, Ray a call each"),
    Target("noops-100k: vmrun against Lithops", "at least", 5_000.0, "x", "no-ops end to end, Lithops"),
    Target("50ms: vmrun engine, share of ideal", "at least", 0.98, "%", "200 tasks of 50 ms, engine alone"),
    Target("1s: vmrun engine, share of ideal", "at least", 0.98, "%", "16 tasks of 1 s, engine alone"),
    Target(
        "1s: vmrun, share of ideal from first start", "at least", 0.95, "%", "16 tasks of 1 s end to end, warm machine"
    ),
    Target(
        "1s: vmrun, new machine, share of ideal from first start",
        "at least",
        0.95,
        "%",
        "16 tasks of 1 s end to end, new machine, its start apart",
    ),
    Target("skewed: vmrun engine, times optimum", "at most", 1.05, "x", "1 % of the tasks 100 times as long"),
    Target("shared: vmrun, workers together", "at most", 1.3e9, "bytes", "1 GB array shared by all workers"),
    Target("results: vmrun against plain writes", "at least", 0.8, "%", "results of 10 MB against one writing process"),
    Target("growth of cost per task", "at most", 1.5, "x", "cost per task, 1,000,000 no-ops against 10,000"),
    Target("growth of cost per task, engine alone", "at most", 1.5, "x", "the same, engine alone"),
    Target(
        "growth of the client's memory", "at most", 4.0, "x", "peak of the client, 1,000,000 no-ops against 100,000"
    ),
    Target("growth of the agent's memory", "at most", 4.0, "x", "peak of the agent, 1,000,000 no-ops against 100,000"),
    Target("128 workers: first to last start", "at most", 11.5, "s", "1,280 sleeping tasks of 1 s on 128 workers"),
    Target("128 workers: dispatch", "at most", 0.10, "%", "of one core: who feeds the engine, and the runner"),
    Target("128 workers: dispatch, with its agent", "at most", 0.10, "%", "of one core: the agent and its runner"),
    Target("128 workers: first to last start, with its agent", "at most", 11.5, "s", "the same, submitted as a job"),
    Target("round trip: local", "at most", 0.020, "s", "one call on a warm vmrun.Executor, median"),
    Target("round trip: Docker and S3", "at most", 0.500, "s", "one call on a warm Docker VM, S3-compatible store"),
    Target("round trip: against Lithops", "at least", 1.0, "x", "one call, times faster than Lithops"),
    Target("calls that hung", "at most", 0.0, "calls", "500 calls one after the other, three times"),
    Target("warm start: Docker", "at most", 2.0, "s", "submit to first task on a warm Docker VM, median of 10"),
    Target("reaper: first pass", "at most", 30.0, "s", "a pass over 10,000 VMs, everything read"),
    Target("reaper: next pass", "at most", 15.0, "s", "the next pass over 10,000 VMs"),
    Target("reaper: memory", "at most", 2e8, "bytes", "memory of passes over 10,000 VMs"),
    Target(
        "isolation: cases in which others suffered", "at most", 0.0, "cases", "vmrun's column of the isolation table"
    ),
)
