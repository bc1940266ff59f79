"""`vmrun status JOB --tasks`, and the line that says who works."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from tests.unit.cli.fakes import JOB, NOW, FakeHandle, job_view, record
from vmrun.agent.runner.guard import THREADS
from vmrun.core.errors import StoreUnavailable
from vmrun.core.model import THREAD_VARIABLES
from vmrun.core.task_views import TaskRecord
from vmrun.core.views import TaskCounts
from vmrun.rendering.crew import crew_line
from vmrun.rendering.text import Style, axis_unit, seconds_text

MIXED = [
    record(0, seconds=1.0),
    record(1, "raised", attempt=2),
    record(2, seconds=3.0, peak_bytes=2_000_000_000),
    record(3, "oom", type="", message="killed by the system", started=None, ended=None, seconds=0.0, cpu_seconds=None),
    record(4, seconds=2.0, cpu_seconds=None, peak_bytes=None),
]


def numbers(out: str) -> list[str]:
    """The first column of the table."""
    rows = out.split("\n\n")[1].splitlines()
    assert rows[0].split()[0] == "TASK"
    return [row.split()[0] for row in rows[1:]]


@pytest.fixture
def mixed(client) -> None:
    client.job.views = [job_view("failed", tasks=TaskCounts(6, 3, 2, 1))]
    client.job.ended = MIXED


def test_the_failed_come_first_then_the_slowest_below_what_all_come_to(vmrun, mixed) -> None:
    done = vmrun("status", JOB, "--tasks")
    assert done.code == 0
    assert done.err == ""
    assert numbers(done.out) == ["1", "3", "2", "4", "0"]
    lines = done.out.splitlines()
    assert lines[0] == f"job      {JOB} simulate"
    assert lines[1] == "tasks    5 of 6 tasks ended: 3 ok, 1 raised, 1 oom; 2 attempts failed before"
    assert lines[2] == "time     min 500 ms · median 1.00 s · p95 3.00 s · max 3.00 s"
    assert lines[3].startswith("cores    2 workers, ")
    assert "1.20 s of CPU time in 4.50 s" in lines[3]
    assert lines[4] == "memory   at most 2 GB in one worker"
    row = next(line for line in lines if line.split()[:2] == ["1", "raised"])
    assert row.split() == ["1", "raised", "500", "ms", "400", "ms", "20", "MB", "3", "1", "+1.00", "s", *ERROR]
    oom = next(line for line in lines if line.split()[:2] == ["3", "oom"])
    assert oom.endswith("killed by the system")
    assert " ms" not in oom


ERROR = ["ValueError:", "bad", "seed"]


def test_a_limit_keeps_the_worst_and_says_how_many_there_are(vmrun, mixed) -> None:
    done = vmrun("status", JOB, "--tasks", "--limit", "2")
    assert numbers(done.out) == ["1", "3"]
    assert done.out.endswith("\n\n3 more tasks: --limit N shows more, --json shows all.\n")


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--failed"], ["1", "3"]),
        (["--tasks", "--state", "oom"], ["3"]),
        (["--state", "ok", "--limit", "1"], ["2"]),
        (["--state", "timeout"], []),
    ],
)
def test_some_of_them(vmrun, mixed, arguments, shown) -> None:
    done = vmrun("status", JOB, *arguments)
    assert done.code == 0
    assert "5 of 6 tasks ended" in done.out, "the summary is about all"
    if shown:
        assert numbers(done.out) == shown
    else:
        assert done.out.endswith("\n\nNo task like that has ended.\n")


def test_of_several_vms_workers_are_told_apart(vmrun, client) -> None:
    client.job.ended = [record(0), record(1, vm="01hzy3vm11m2n4p6q8r0s1other")]
    out = vmrun("status", JOB, "--tasks").out
    assert "s1t2v3/0" in out
    assert "1other/1" in out


def test_the_reduce_and_what_tasks_say_are_shown_safely(vmrun, client) -> None:
    client.job.ended = [record(4, "raised", reduce=True, message="a\x1b[2Jb\nc")]
    out = vmrun("status", JOB, "--tasks").out
    assert numbers(out) == ["reduce"]
    assert "ValueError: a\\x1b[2Jb\\nc" in out


def test_nothing_has_ended_yet(vmrun, client) -> None:
    client.job.views = [job_view("running", tasks=TaskCounts(4, 0, 0, 2))]
    out = vmrun("status", JOB, "--tasks").out
    assert out == f"job      {JOB} simulate\ntasks    0 of 4 tasks ended\n\nNo task like that has ended.\n"


# --- as JSON ---


def test_one_document_with_a_line_for_each_record(vmrun, mixed) -> None:
    done = vmrun("status", JOB, "--tasks", "--json")
    first, *lines, last = done.out.splitlines()
    document = json.loads(done.out)
    assert list(document) == ["schema", "job", "tasks", "stats", "ok"]
    assert (document["schema"], document["ok"], document["job"]["id"]) == (1, True, JOB)
    assert [json.loads(line.rstrip(",")) for line in lines] == document["tasks"]
    assert [task["task"] for task in document["tasks"]] == [0, 1, 2, 3, 4], "in the order in which they were committed"
    assert first.endswith('"tasks": [')
    assert last.startswith('], "stats": {')


def test_a_record_as_json_has_every_field(vmrun, mixed) -> None:
    one, two, *_ = json.loads(vmrun("status", JOB, "--tasks", "--json").out)["tasks"]
    assert list(one) == [field.name for field in fields(TaskRecord)] + ["cpu_usage"]
    assert (one["started"], one["seconds"], one["cpu_usage"]) == (NOW - 80, 1.0, 0.4)
    assert (two["kind"], two["type"], two["message"], two["attempt"]) == ("raised", "ValueError", "bad seed", 2)
    assert two["load_seconds"] is None


def test_statistics_as_json_are_of_all_tasks(vmrun, mixed) -> None:
    document = json.loads(vmrun("status", JOB, "--failed", "--json").out)
    assert [task["task"] for task in document["tasks"]] == [1, 3]
    stats = document["stats"]
    assert (stats["tasks"], stats["ended"], stats["kinds"]) == (6, 5, {"ok": 3, "raised": 1, "oom": 1})
    assert stats["seconds"] == {"min": 0.5, "median": 1.0, "p95": 3.0, "max": 3.0, "mean": 1.625, "total": 6.5}
    assert stats["workers"] == len(stats["per_worker"]) == 2
    assert set(stats["per_vm"][0]) >= {"vm", "workers", "cores", "sent_bytes", "received_bytes"}


def test_json_with_a_limit_is_of_the_worst(vmrun, mixed) -> None:
    document = json.loads(vmrun("status", JOB, "--tasks", "--json", "--limit", "3").out)
    assert [task["task"] for task in document["tasks"]] == [1, 3, 2]


def test_json_of_nothing(vmrun) -> None:
    assert vmrun("status", JOB, "--tasks", "--json").document["tasks"] == []


def test_a_store_that_fails_half_way_still_gives_one_document(vmrun, client, mixed) -> None:
    client.job.broken = StoreUnavailable("no answer", hint="try again")
    done = vmrun("status", JOB, "--tasks", "--json")
    document = json.loads(done.out)
    assert done.code == StoreUnavailable.exit_code
    assert document["ok"] is False
    assert document["error"]["message"] == "no answer"
    assert len(document["tasks"]) == 5


# --- wrong ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks"], "the tasks of which job?"),
        (["--failed"], "the tasks of which job?"),
        ([JOB, "--tasks", "--watch"], "--watch shows jobs"),
        ([JOB, "--state", "broken"], "no task ends 'broken'"),
        ([JOB, "--failed", "--state", "oom"], "do not go together"),
    ],
)
def test_what_makes_no_sense(vmrun, client, arguments, message) -> None:
    done = vmrun("status", *arguments)
    assert done.code == 2
    assert message in done.err
    assert "hint:" in done.err
    assert ("task_reader",) not in client.job.calls


# --- text ---


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (1e-12, "0 s"),
        (3e-8, "30 ns"),
        (9.994e-7, "999 ns"),
        (9.996e-7, "1.00 µs"),
        (1.234e-5, "12.3 µs"),
        (9.996e-4, "1.00 ms"),
        (0.5, "500 ms"),
        (0.9996, "1.00 s"),
        (59.94, "59.9 s"),
        (59.96, "1m 00s"),
        (125.0, "2m 05s"),
    ],
)
def test_seconds_are_written_with_three_digits(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text
    assert seconds_text(seconds, Style(unicode=False)).isascii()


@pytest.mark.parametrize(
    ("most", "unit"),
    [(0.0, "microseconds"), (0.5, "milliseconds"), (30.0, "seconds"), (1000.0, "minutes"), (1e5, "hours")],
)
def test_an_axis_has_the_unit_that_fits(most: float, unit: str) -> None:
    assert axis_unit(most)[1] == unit


# --- who works ---


@pytest.mark.parametrize(
    ("view", "line"),
    [
        (job_view(workers=2, cores=2, threads=1), "workers: 2 (one per core); BLAS/OpenMP threads per task: 1"),
        (job_view(workers=2, cores=8, threads=4), "workers: 2 (on 8 cores); BLAS/OpenMP threads per task: 4"),
        (job_view(workers=4, cores=1, threads=1), "workers: 4 (on 1 core); BLAS/OpenMP threads per task: 1"),
        (job_view(workers=8, cores=8), "workers: 8 (one per core)"),
        (job_view(workers=8), "workers: 8"),
        (job_view(), ""),
        (job_view(workers=2, cores=2, threads=1, kind="script"), ""),
        (job_view(workers=2, cores=2, threads=1, kind="command"), ""),
    ],
)
def test_the_crew_in_one_line(view, line) -> None:
    assert crew_line(view) == line


@pytest.mark.parametrize("arguments", [("submit", "--", "true"), ("wait", JOB)])
def test_the_crew_is_told_once_when_it_is_known(vmrun, client, arguments) -> None:
    known = {"workers": 2, "cores": 2, "threads": 1}
    client.job = FakeHandle(views=[job_view("pending"), job_view("running", **known), job_view(**known)])
    done = vmrun(*arguments)
    assert done.code == 0
    assert done.err.count("workers: 2 (one per core); BLAS/OpenMP threads per task: 1\n") == (arguments[0] == "submit")


def test_variables_of_threads_are_those_that_workers_set() -> None:
    assert frozenset(THREADS) == THREAD_VARIABLES
