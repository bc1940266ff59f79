"""One bad task among good ones, in each system: does it fail alone, or what becomes of its neighbours?

python benchmarks/isolation.py                              the table, and docs/explanation/isolation.md from it
python benchmarks/isolation.py --system Ray --case disk     this anew, all else as it was in the last run
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import crowding
import harness
from environments import NotInstalled, python_of
from figures import Figure
from isolation_cases import BAD, CASES, SMALL_DISK, TASK_MEMORY
from process import Driver, DriverFailed, Hung

PAGE = Path(__file__).resolve().parents[1] / "docs" / "explanation" / "isolation.md"
#: Tasks of a run, the bad one included, and processes that work on them.
TASKS, WORKERS = 20, 2
#: Seconds that a task of vmrun may take: it is the only one here that can be told, as it can the memory.
TASK_TIMEOUT = 6.0
#: Of what one task prints, vmrun keeps no more than this (64 MiB of each stream, and a little to say so).
KEPT_OUTPUT = 2 * 64 * 1024 * 1024 + 1024 * 1024
DISK_BYTES = "32m"
#: Processes and threads that the whole of a system may have while a task of it starts all that it can.
CROWD = 4_096
#: Cases for which an instance lives in a place made for it.
APART = ("disk", "threads")
#: Cases that take a while by themselves: so many times the limit is to pass before what has not come never will.
SLOW = {"threads": 5}
#: The verdict on a system that was not there to be tried.
NOT_STARTED = "did not start"


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
    #: Whether an instance in which a bad task failed alone serves for the next case; starting takes it seconds.
    reuse: bool = False

    def __hash__(self) -> int:
        return hash(self.label)


SUBJECTS = (
    Subject("vmrun", "vmrun-job", "vmrun", 40.0, options={"task_timeout": TASK_TIMEOUT, "task_memory": TASK_MEMORY}),
    Subject("ProcessPoolExecutor", "executor", "stdlib", 6.0),
    Subject("multiprocessing.Pool", "pool", "stdlib", 6.0),
    Subject("joblib", "joblib", "joblib", 10.0),
    Subject("Dask", "dask", "dask", 60.0, reuse=True),
    Subject("Ray", "ray", "ray", 30.0, reuse=True),
    Subject("Lithops", "lithops", "lithops", 40.0, tasks=10, reuse=True),
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


@dataclass(frozen=True)
class Trial:
    """One case in one system."""

    verdict: Verdict
    version: str = ""
    #: How the bad task ended: `ok`, or what the system said of it.
    ending: str = ""


def try_case(subject: Subject, case: str, python: str | Path) -> Trial:
    """Run one case in a fresh instance of the system."""
    with (
        small_disk(case) as environment,
        small_crowd(case) as enter,
        Driver(subject.system, python, environment) as driver,
    ):
        enter(driver.pid)
        if problem := begin(driver, subject):
            return Trial(Verdict(NOT_STARTED, alone=False, said=problem))
        found = try_in(driver, subject, case)
        if found.verdict.text.startswith("hung"):
            driver.close(ask=False)
        return found


def begin(driver: Driver, subject: Subject) -> str:
    """Start the system, with a second try for those that give up on a busy computer; what went wrong."""
    for _ in range(2):
        try:
            driver.start(WORKERS, **(subject.options or {}))
            return ""
        except DriverFailed as reason:
            problem = str(reason).splitlines()[0]
    return problem


def try_in(driver: Driver, subject: Subject, case: str) -> Trial:
    """Run one case in an instance that has started."""
    everybody = _neighbours(subject.tasks - 1)
    limit = subject.limit * SLOW.get(case, 1)
    try:
        reply = driver.ask("each", limit + 10, case=case, tasks=subject.tasks, limit=limit)
    except Hung:
        return Trial(Verdict(f"hung, {everybody} lost", alone=False), driver.version)
    except DriverFailed as reason:
        return Trial(Verdict(f"{everybody} lost", alone=False, said=str(reason).splitlines()[0]), driver.version)
    found = verdict(case, reply["outcomes"])
    if reply.get("kept_output", 0) > KEPT_OUTPUT:
        found = Verdict("output without bound", alone=False)
    state, value = reply["outcomes"][BAD]
    return Trial(found, driver.version, "ok" if state == "ok" else str(value).partition(":")[0])


@contextlib.contextmanager
def small_disk(case: str) -> Iterator[dict[str, str]]:
    """For the case `disk` the variables that put a system's temporary files and state on a small file system."""
    if case != "disk":
        yield {}
        return
    place = Path(tempfile.mkdtemp(prefix="vmb-disk-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "vmrun-bench", str(place)], check=True)
    try:
        (place / "s").mkdir()
        yield {"TMPDIR": str(place), "XDG_STATE_HOME": str(place / "s"), SMALL_DISK: str(place)}
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
        place.rmdir()


@contextlib.contextmanager
def small_crowd(case: str) -> Iterator[Callable[[int], None]]:
    """What puts a driver, before it starts anything, where the case `threads` leaves others room for theirs."""
    if case != "threads":
        yield lambda _: None
        return
    with crowding.room_for(CROWD) as group:
        yield lambda pid: crowding.enter(group, pid)


def cannot(case: str) -> str:
    """Why a case cannot be tried here; empty if it can."""
    if case == "disk" and os.geteuid() != 0:
        return "not tried: only root can make a small disk"
    if case == "threads":
        try:
            with crowding.room_for(CROWD):
                pass
        except crowding.NoGroup as reason:
            return f"not tried: no control group to hold the threads ({reason})"
    return ""


def look_at(subject: Subject, cases: Sequence[str]) -> tuple[dict[str, Verdict], str]:
    """Verdicts of one system by case, and its version."""
    try:
        python = python_of(subject.environment)
    except NotInstalled as reason:
        return dict.fromkeys(cases, Verdict("not installed", alone=False)), f"not installed: {reason}"
    found: dict[str, Verdict] = {}
    version = ""
    with Instances(subject, python) as instances:
        for case in cases:
            if reason_not := cannot(case):
                found[case] = Verdict(reason_not, alone=True)
                continue
            began = time.monotonic()
            trial = instances.try_case(case)
            found[case], version = trial.verdict, trial.version or version
            taken = time.monotonic() - began
            print(f"  {subject.label}, {case}: {trial.verdict.text} ({taken:.1f} s)", file=sys.stderr, flush=True)
    return found, version


class Instances:
    """Instances of one system: a fresh one for each case, or as long as nobody but bad tasks suffers in it."""

    def __init__(self, subject: Subject, python: Path) -> None:
        self._subject = subject
        self._python = python
        self._driver: Driver | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._drop(ask=True)

    def _drop(self, *, ask: bool) -> None:
        if self._driver is not None:
            self._driver.close(ask=ask)
            self._driver = None

    def try_case(self, case: str) -> Trial:
        """Run one case."""
        if not self._subject.reuse or case in APART:
            return try_case(self._subject, case, self._python)
        if self._driver is None:
            self._driver = Driver(self._subject.system, self._python)
            if problem := begin(self._driver, self._subject):
                self._drop(ask=False)
                return Trial(Verdict(NOT_STARTED, alone=False, said=problem))
        trial = try_in(self._driver, self._subject, case)
        if trial.verdict.text != "failed alone":
            self._drop(ask=not trial.verdict.text.startswith("hung"))
        return trial


Table = dict[str, dict[str, Verdict]]
QUICK = ("raise", "os-exit", "exception", "state")


def look(subjects: Sequence[Subject], cases: Sequence[str]) -> tuple[Table, dict[str, str]]:
    """Verdicts by case and system, and the systems' versions."""
    # Two at a time: nothing is timed here, and most of the time goes into waiting for what never comes.
    with ThreadPoolExecutor(2) as pool:
        # The slow ones come last in the table, and are begun first.
        order = subjects[::-1]
        looks = dict(zip(order, pool.map(lambda one: look_at(one, cases), order), strict=True))
    versions = {subject.label: looks[subject][1] for subject in subjects}
    return {case: {subject.label: looks[subject][0][case] for subject in subjects} for case in cases}, versions


def kept() -> tuple[Table, dict[str, str]]:
    """What the last runs found."""
    document = json.loads((harness.RESULTS / "isolation.json").read_text(encoding="utf-8"))
    cases = document["cases"]
    table = {case: {label: Verdict(**one) for label, one in row.items()} for case, row in cases.items()}
    return table, document["versions"]


def show(table: Table, versions: dict[str, str], *, write: bool) -> None:
    """Print the table, keep it, and with `write` make the page of it."""
    labels = [subject.label for subject in SUBJECTS]
    rows = [(case, *(row[label].text for label in labels)) for case, row in table.items()]
    print(harness.table(("one bad task", *labels), rows))
    cases = {case: {label: asdict(one) for label, one in row.items()} for case, row in table.items()}
    harness.write("isolation", {"versions": versions, "cases": cases})
    if write:
        PAGE.write_text(page(table, versions, labels), encoding="utf-8")


def measure(*, quick: bool) -> Iterator[Figure]:
    """The whole table and its page; the figure: in how many cases others than vmrun's bad task suffered."""
    found, versions = look(SUBJECTS, QUICK if quick else tuple(CASES))
    show(found, versions, write=not quick)
    suffered = [case for case, row in found.items() if not row["vmrun"].alone]
    note = ", ".join(suffered) or f"{len(found)} cases"
    yield Figure("isolation: cases in which others suffered", len(suffered), note)


def again(labels: Sequence[str], cases: Sequence[str]) -> None:
    """Try some cases in some systems anew, and put them into the table of the last run and into the page."""
    table, versions = kept()
    found, fresh = look([one for one in SUBJECTS if one.label in labels], cases)
    for case, row in found.items():
        table.setdefault(case, {}).update(row)
    # In the order of the cases, wherever a new one stands among them.
    show({case: table[case] for case in CASES if case in table}, {**versions, **fresh}, write=True)


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
_READING = f"""How to read it:

- **failed alone**: the bad task failed, and all others gave their right results. In brackets: how vmrun says it ended.
- **nobody noticed**: what the task did is not forbidden, it succeeded, and nobody else saw any of it.
- **N neighbours lost**: so many good tasks gave no result. Another run may lose more or fewer, by what was under way.
- **hung**: within the limit (6 seconds for what comes with Python, up to 60 for the slower ones) some task had neither
  a result nor an error. Only vmrun was given a time limit per task; the others have none (Lithops has one, in minutes).
  For the threads, which take time to start, it is five times as long.
- **state leaked**: later tasks found the working directory, umask or environment of the bad one.
- **counted as success**: the bad task was reported as if nothing had happened. Only vmrun was given a memory limit per
  task (`task_memory`), which is what the one that takes 1 GB runs into; the others were given none.

The limit of the other memory case is one of the task's own process (`RLIMIT_AS`) in every system, so that the
computer is never short of memory. The small disk is a file system of its own that holds the temporary files of each
system, and in the case of vmrun the machine's state too; the store is elsewhere, as it is for a rented machine. The
threads are started where the whole of a system is in a control group with room for {CROWD:,} processes and threads, as
in a container: without, nothing else on the computer could start anything. The kernel refuses the task what is beyond,
or vmrun ends it before.

How the rest was measured: [benchmarks](benchmarks.md).
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    labels = [subject.label for subject in SUBJECTS]
    parser.add_argument("--system", action="append", choices=labels, help="only this one; the others stay as they were")
    parser.add_argument("--case", action="append", choices=list(CASES), help="only this one; likewise")
    asked = parser.parse_args()
    if asked.system or asked.case:
        again(asked.system or labels, asked.case or list(CASES))
        return
    for figure in measure(quick=False):
        print(figure)


if __name__ == "__main__":
    main()
