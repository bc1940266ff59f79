"""One bad task among good ones, in each system: does it fail alone, or what becomes of its neighbours?

python benchmarks/isolation.py            the table
python benchmarks/isolation.py --write    and docs/explanation/isolation.md from it
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import harness
from environments import NotInstalled, python_of
from figures import Figure
from isolation_cases import BAD, CASES, SMALL_DISK
from process import Driver, DriverFailed, Hung

PAGE = Path(__file__).resolve().parents[1] / "docs" / "explanation" / "isolation.md"
#: Tasks of a run, the bad one included, and processes that work on them.
TASKS, WORKERS = 20, 2
#: Seconds that a task of vmrun may take: it is the only one here that can be told.
TASK_TIMEOUT = 2.0
#: Of what one task prints, vmrun keeps no more than this (64 MiB of each stream, and a little to say so).
KEPT_OUTPUT = 2 * 64 * 1024 * 1024 + 1024 * 1024
DISK_BYTES = "32m"


@dataclass(frozen=True)
class Subject:
    """A system whose isolation is looked at."""

    label: str
    system: str
    environment: str
    #: Seconds after which what has not come never will.
    limit: float
    tasks: int = TASKS
    options: Mapping[str, Any] | None = None


SUBJECTS = (
    Subject("vmrun", "vmrun-job", "vmrun", 40.0, options={"task_timeout": TASK_TIMEOUT}),
    Subject("ProcessPoolExecutor", "executor", "stdlib", 6.0),
    Subject("multiprocessing.Pool", "pool", "stdlib", 6.0),
    Subject("joblib", "joblib", "joblib", 10.0),
    Subject("Dask", "dask", "dask", 15.0),
    Subject("Ray", "ray", "ray", 15.0),
    Subject("Lithops", "lithops", "lithops", 20.0, tasks=10),
)


@dataclass(frozen=True)
class Verdict:
    """What became of a bad task and its neighbours."""

    text: str
    #: Whether nobody but the bad task had anything of it.
    alone: bool
    #: What the system said of the bad task.
    said: str = ""


def verdict(case: str, outcomes: Sequence[Sequence[Any]]) -> Verdict:
    """Judge the outcomes (state, value) of all tasks of a run."""
    bad = outcomes[BAD]
    good = [(number, one) for number, one in enumerate(outcomes) if number != BAD]
    lost = sum(1 for number, (state, value) in good if state != "ok" or list(value)[:1] != [number])
    leaked = any(state == "ok" and value[1] for _, (state, value) in good)
    said = str(bad[1]).splitlines()[0] if bad[0] == "failed" and bad[1] else ""
    if any(state == "missing" for state, _ in outcomes):
        return Verdict("hung" + (f", {_neighbours(lost)} lost" if lost else ""), alone=False)
    if lost:
        return Verdict(f"{_neighbours(lost)} lost", alone=False, said=said)
    if leaked:
        return Verdict("state leaked", alone=False)
    if bad[0] == "failed":
        return Verdict("failed alone", alone=True, said=said)
    if "ok" in CASES[case].kinds:
        return Verdict("nobody noticed", alone=True)
    return Verdict("counted as success", alone=False)


def _neighbours(count: int) -> str:
    return "1 neighbour" if count == 1 else f"{count} neighbours"


def try_case(subject: Subject, case: str, python: str | Path) -> tuple[Verdict, str, dict[str, Any]]:
    """Run one case in a fresh instance of the system: verdict, version, and what it answered."""
    with small_disk(case) as environment, Driver(subject.system, python, environment) as driver:
        try:
            driver.start(WORKERS, **(subject.options or {}))
        except DriverFailed as reason:
            return Verdict(f"did not start: {reason}".splitlines()[0], alone=False), "", {}
        try:
            reply = driver.ask("each", subject.limit + 10, case=case, tasks=subject.tasks, limit=subject.limit)
        except Hung:
            return Verdict(f"hung, {_neighbours(subject.tasks - 1)} lost", alone=False), driver.version, {}
        except DriverFailed as reason:
            said = str(reason).splitlines()[0]
            lost = f"{_neighbours(subject.tasks - 1)} lost"
            return Verdict(lost, alone=False, said=said), driver.version, {}
        found = verdict(case, reply["outcomes"])
        if reply.get("kept_output", 0) > KEPT_OUTPUT:
            found = Verdict("output without bound", alone=False)
        return found, driver.version, reply


@contextlib.contextmanager
def small_disk(case: str) -> Iterator[dict[str, str]]:
    """For the case `disk` the variables that put a system's temporary files and state on a small file system."""
    if case != "disk":
        yield {}
        return
    place = Path(os.path.realpath(os.environ.get("TMPDIR", "/tmp"))) / f"vmb-disk-{os.getpid()}"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "vmrun-bench", str(place)], check=True)
    try:
        (place / "s").mkdir()
        yield {"TMPDIR": str(place), "XDG_STATE_HOME": str(place / "s"), SMALL_DISK: str(place)}
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
        shutil.rmtree(place, ignore_errors=True)


def cannot(case: str) -> str:
    """Why a case cannot be tried here; empty if it can."""
    if case == "disk" and os.geteuid() != 0:
        return "not tried: only root can make a small disk"
    return ""


def look(subjects: Sequence[Subject], cases: Sequence[str]) -> tuple[dict[str, dict[str, Verdict]], dict[str, str]]:
    """Verdicts by case and system, and the systems' versions."""
    table: dict[str, dict[str, Verdict]] = {case: {} for case in cases}
    versions: dict[str, str] = {}
    for subject in subjects:
        try:
            python = python_of(subject.environment)
        except NotInstalled as reason:
            versions[subject.label] = f"not installed: {reason}"
            for case in cases:
                table[case][subject.label] = Verdict("not installed", alone=False)
            continue
        for case in cases:
            if reason_not := cannot(case):
                table[case][subject.label] = Verdict(reason_not, alone=True)
                continue
            began = time.monotonic()
            found, version, _ = try_case(subject, case, python)
            table[case][subject.label] = found
            versions[subject.label] = version or versions.get(subject.label, "")
            print(
                f"  {subject.label}, {case}: {found.text} ({time.monotonic() - began:.1f} s)",
                file=sys.stderr,
                flush=True,
            )
    return table, versions


def measure(*, quick: bool, write: bool = False) -> Iterator[Figure]:
    """The whole table, printed and kept; the figure is in how many cases somebody else than vmrun's bad task suffered."""
    cases = ["raise", "os-exit", "exception", "state"] if quick else list(CASES)
    found, versions = look(SUBJECTS, cases)
    labels = [subject.label for subject in SUBJECTS]
    rows = [(case, *(found[case][label].text for label in labels)) for case in cases]
    print(harness.table(("one bad task", *labels), rows))
    kept = {case: {label: asdict(one) for label, one in row.items()} for case, row in found.items()}
    harness.write("isolation", {"versions": versions, "cases": kept})
    if not quick or write:
        PAGE.write_text(page(found, versions, labels), encoding="utf-8")
    suffered = [case for case in cases if not found[case]["vmrun"].alone]
    note = ", ".join(suffered) or f"{len(cases)} cases"
    yield Figure("isolation: cases in which others suffered", len(suffered), note)


def page(table: Mapping[str, Mapping[str, Verdict]], versions: Mapping[str, str], labels: Sequence[str]) -> str:
    """The table as a page of the documentation."""
    taken = time.strftime("%Y-%m-%d", time.gmtime())
    head = f"| one task that | {' | '.join(labels)} |"
    lines = [head, "|---" * (len(labels) + 1) + "|"]
    for case, row in table.items():
        cells = []
        for label in labels:
            one = row[label]
            kind = one.said.partition(":")[0] if label == "vmrun" and one.said else ""
            cells.append(f"{one.text} (`{kind}`)" if kind else one.text)
        lines.append(f"| {CASES[case].title} | {' | '.join(cells)} |")
    known = [f"- {label}: {version}" for label, version in versions.items()]
    return "\n".join([_INTRODUCTION, f"Measured on {taken}:", "", *lines, "", "Versions:", "", *known, "", _READING])


_INTRODUCTION = f"""# Isolation: what one bad task does to its neighbours

Made by `python benchmarks/run_all.py isolation`, which runs every case in every system; do not edit it. In each run
{TASKS} tasks are handed to {WORKERS} worker processes (Lithops: 10 tasks), one of them bad. `make test` runs vmrun's
column, and those of the two systems that come with Python.
"""
_READING = """How to read it:

- **failed alone**: the bad task failed, and all others gave their right results. In brackets: how vmrun says it ended.
- **nobody noticed**: what the task did is not forbidden, it succeeded, and nobody else saw any of it.
- **N neighbours lost**: so many good tasks gave no result. A run can lose more or fewer, depending on what was under way.
- **hung**: within the limit (6 to 20 seconds) some task had neither a result nor an error. Only vmrun was given a time
  limit per task, since the others have none (Lithops has one for its own functions, in minutes).
- **state leaked**: later tasks found the working directory, umask or environment of the bad one.
- **counted as success**: the bad task was reported as if nothing had happened.

The limit of the memory case is one of the task's own process (`RLIMIT_AS`) in every system, so that the computer is never
short of memory. The small disk is a file system of its own that holds the temporary files of each system, and in the case
of vmrun the machine's state too; the store is elsewhere, as it is for a rented machine.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the page of the documentation")
    parser.add_argument("--quick", action="store_true", help="a few cases only")
    asked = parser.parse_args()
    for figure in measure(quick=asked.quick, write=asked.write):
        print(figure)


if __name__ == "__main__":
    main()
