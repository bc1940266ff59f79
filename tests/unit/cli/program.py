"""`python -m tests.unit.cli.program SCENARIO ARGUMENTS…`: the command line in a process of its own, against a fake."""

from __future__ import annotations

import sys

from tests.unit.cli.fakes import FakeClient, FakeHandle, job_view, vm_view, wrote
from vmrun.cli import run
from vmrun.core.clock import SystemClock
from vmrun.core.views import JobResults, TaskCounts

CLOCK = SystemClock()


def plain() -> FakeClient:
    """A job that is done."""
    return FakeClient()


def many() -> FakeClient:
    """More values than any pipe holds."""
    return FakeClient(FakeHandle(given=JobResults(["x" * 100] * 100_000, [])))


def chatty() -> FakeClient:
    """A script that writes a lot while it runs."""
    view = job_view("running", kind="script")
    lines = [[wrote("y" * 1000 + "\n") for _ in range(50)] for _ in range(500)]
    return FakeClient(FakeHandle(views=[view] * 500 + [job_view(kind="script")], output=lines))


def endless() -> FakeClient:
    """A job that runs until somebody interrupts."""
    views = [job_view("running", tasks=TaskCounts(10, 1, 0, 2))] * 100_000
    return FakeClient(FakeHandle(views=views, between=lambda: CLOCK.sleep(0.02)))


def slow() -> FakeClient:
    """A job of half a second, whose reduce writes a line in two halves."""
    running = [job_view("running", tasks=TaskCounts(50, n, 0, 2), vms=(vm_view(job="x"),)) for n in range(0, 50, 2)]
    output = [[]] * 10 + [[wrote("half ", 50, reduce=True)], [], [wrote("line\n", 50, reduce=True)]]
    job = FakeHandle(views=[*running, job_view(tasks=TaskCounts(50, 50))], output=output)
    job.between = lambda: CLOCK.sleep(0.02)
    return FakeClient(job)


def defect() -> FakeClient:
    """vmrun fails."""
    return FakeClient(trouble=ZeroDivisionError("division by zero"))


if __name__ == "__main__":
    fake = globals()[sys.argv[1]]()
    sys.exit(run(sys.argv[2:], connect=lambda: fake))
