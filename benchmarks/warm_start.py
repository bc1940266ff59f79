"""From `vmrun submit` to the start of the first task, on Docker: on a new machine and on one that was kept warm.

The store is a directory, so that the times at which its objects appeared tell the stages apart; the first task says
itself when it started, by the clock that containers share with this computer. Everything is the command line's, in a
process of its own for each submit, with directories of its own; the machines are given back at the end.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import harness
from figures import Figure

ROOT = Path(__file__).resolve().parents[1]
JOB = """
import time
import vmrun

@vmrun.job(over=range(2))
def started(_):
    return time.time()
"""
#: Measured submits; an unmeasured one before them builds what is built once, such as the agent.
COLD, WARM = 3, 10
#: Seconds for one submit.
LIMIT = 600.0
STAGES = (
    ("CLI start, job read", "until the first object is uploaded"),
    ("upload", "until the job exists"),
    ("machine", "until the VM has the job: a new one is READY, a warm one has its ASSIGN"),
    ("agent, environment, workers", "until the agent has seen it, has made it startable and has claimed the tasks"),
    ("first task", "until it runs"),
)


@dataclass
class Deployment:
    """One store, its configuration, and how `vmrun` is called with it."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.folder / "job.py").write_text(JOB, "utf-8")
        own = {
            "VMRUN_CONFIG_DIR": self.folder / "config",
            "VMRUN_CACHE_DIR": self.folder / "cache",
            "VMRUN_STATE_DIR": self.folder / "state",
            "VMRUN_STORE": f"file://{self.store}",
            "PYTHONPATH": ROOT,
        }
        self.environ = {**os.environ, **{name: str(value) for name, value in own.items()}}

    @property
    def store(self) -> Path:
        """The directory that is the store."""
        return self.folder / "store"

    def vmrun(self, *words: str) -> str:
        """What it prints."""
        argv = [sys.executable, "-P", "-m", "vmrun", *words]
        done = subprocess.run(
            argv, cwd=self.folder, env=self.environ, capture_output=True, text=True, check=False, timeout=LIMIT
        )
        if done.returncode:
            raise RuntimeError(f"vmrun {' '.join(words)}: {done.stderr[-2000:]}")
        return done.stdout

    def submit(self, *options: str) -> list[float]:
        """Seconds of each stage of one submit."""
        before = set(self._payloads())
        # No two jobs have the same source, as those of a person who works on one have not.
        (self.folder / "job.py").write_text(f"{JOB}\n# {time.time_ns()}\n", "utf-8")
        began = time.time()  # noqa: TID251  the clock by which the task tells
        document = json.loads(self.vmrun("submit", "--on", "docker", "--json", *options, "job.py").splitlines()[-1])
        found = json.loads(self.vmrun("result", document["job"]["id"], "--json"))
        job = self.store / "jobs" / document["job"]["id"]
        (vm,) = (each["id"] for each in document["job"]["vms"])
        moments = [
            began,
            min(path.stat().st_mtime for path in set(self._payloads()) - before),
            (job / "journal" / "000000").stat().st_mtime,
            self._given(vm),
            (job / "shards" / "000000" / "000000").stat().st_mtime,
            min(found["results"]),
        ]
        return [after - earlier for earlier, after in itertools.pairwise(moments)]

    def _payloads(self) -> Iterator[Path]:
        return (self.store / "payloads").glob("*")

    def _given(self, vm: str) -> float:
        """When the VM was READY, or had the last of its ASSIGNs."""
        entries = sorted((self.store / "vms" / vm).iterdir())
        given = [path for path in entries if b'"type":"READY"' in _head(path) or b'"type":"ASSIGN"' in _head(path)]
        return given[-1].stat().st_mtime


def _head(path: Path) -> bytes:
    return path.read_bytes().partition(b"\n")[0].replace(b" ", b"")


def measure(*, quick: bool = False) -> Iterator[Figure]:
    """The table, and the figures that targets are about; nothing where no Docker Engine answers."""
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode
    ):
        print("not measured: no Docker Engine answers")
        return
    cold_runs, warm_runs = (1, 2) if quick else (COLD, WARM)
    with tempfile.TemporaryDirectory(prefix="vmrun-warm-start-") as folder:
        deployment = Deployment(Path(folder))
        try:
            deployment.submit()
            cold = [deployment.submit() for _ in range(cold_runs)]
            deployment.submit("--keep-warm", "10m")
            warm = [deployment.submit("--keep-warm", "10m") for _ in range(warm_runs)]
        finally:
            deployment.vmrun("reap", "--all", "--yes")
    print(f"submit to first task on Docker, median of {cold_runs} on new machines and of {warm_runs} on a warm one")
    rows = [
        (name, f"{_median(cold, at):.3f} s", f"{_median(warm, at):.3f} s", what)
        for at, (name, what) in enumerate(STAGES)
    ]
    wholes = [[sum(run) for run in runs] for runs in (cold, warm)]
    rows.append(("all", *(f"{statistics.median(whole):.3f} s" for whole in wholes), "medians of whole runs"))
    print(harness.table(("stage", "new", "warm", ""), rows))
    harness.write("warm-start", {"stages": [name for name, _ in STAGES], "new": cold, "warm": warm})
    cold_median, warm_median = (statistics.median(whole) for whole in wholes)
    note = f"{min(wholes[1]):.2f} to {max(wholes[1]):.2f} s; {cold_median:.2f} s on a new machine"
    yield Figure("warm start: Docker", warm_median, note)
    yield Figure("warm start: against a new machine", cold_median / warm_median, note)


def _median(runs: Sequence[Sequence[float]], at: int) -> float:
    return statistics.median(run[at] for run in runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few runs")
    for figure in measure(quick=parser.parse_args().quick):
        print(f"{figure.name}: {figure.value:.3f} ({figure.note})")


if __name__ == "__main__":
    main()
