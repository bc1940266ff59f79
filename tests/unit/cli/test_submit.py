"""`vmrun submit`: what goes where, and how it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.fakes import JOB, FakeHandle, failure, job_view, wrote
from vmrun.core.errors import StoreUnavailable
from vmrun.core.views import JobResults, TaskCounts


@pytest.fixture(autouse=True)
def job_file(here: Path) -> Path:
    path = here / "job.py"
    path.write_text("", encoding="utf-8")
    return path


def test_values_go_to_stdout_and_progress_to_stderr(vmrun, client) -> None:
    done = vmrun("submit", "job.py")
    assert done.code == 0
    assert done.out == "0\n1\n4\n9\n"
    assert "uploading" in done.err
    assert "done: 4 tasks in 1m 30s, $0.12" in done.err
    assert client.job.calls[0] == ("watch", True)


def test_a_reduced_value_is_shown_instead_of_the_tasks_values(vmrun, client) -> None:
    client.job.given = JobResults([1, 2], [], reduced={"sum": 3}, has_reduced=True)
    assert vmrun("submit", "job.py").out == "{'sum': 3}\n"


def test_a_reduced_text_is_shown_as_it_is(vmrun, client) -> None:
    client.job.given = JobResults([1, 2], [], reduced="a\tb\nc", has_reduced=True)
    assert vmrun("submit", "job.py").out == "a\tb\nc\n"


def test_a_reduced_none_is_nothing_to_show(vmrun, client) -> None:
    client.job.given = JobResults([1, 2], [], reduced=None, has_reduced=True)
    assert vmrun("submit", "job.py").out == ""


def test_many_values_are_abridged_with_a_way_to_all_of_them(vmrun, client) -> None:
    client.job.given = JobResults(list(range(1000)), [])
    done = vmrun("submit", "job.py")
    assert done.out.splitlines() == [str(number) for number in range(20)]
    assert f"... and 980 more values: `vmrun result {JOB} -o results.pkl` saves all" in done.err


def test_values_that_are_all_none_are_not_shown(vmrun, client) -> None:
    client.job.given = JobResults([None] * 50, [])
    done = vmrun("submit", "job.py")
    assert done.out == ""
    assert "more" not in done.err


def test_a_value_whose_repr_raises_does_not_hide_the_others(vmrun, client) -> None:
    class Sour:
        def __repr__(self) -> str:
            raise RuntimeError

    client.job.given = JobResults([1, Sour(), 3], [])
    assert vmrun("submit", "job.py").out == "1\n<Sour, whose repr raises RuntimeError>\n3\n"


def test_files_come_home_below_the_current_directory(vmrun, client, here) -> None:
    client.job.files = {"table.csv": "a,b\n", "plots/one.svg": "<svg/>"}
    done = vmrun("submit", "job.py")
    assert (here / "vmrun-output" / JOB / "plots" / "one.svg").read_text() == "<svg/>"
    assert f"wrote vmrun-output/{JOB}/table.csv" in done.err
    assert "wrote" not in done.out


def test_no_directory_is_made_for_no_files(vmrun, here) -> None:
    vmrun("submit", "job.py")
    assert [path.name for path in here.iterdir()] == ["job.py"]


def test_files_go_where_the_user_says(vmrun, client, here) -> None:
    client.job.files = {"table.csv": "a,b\n"}
    done = vmrun("submit", "job.py", "-o", "there")
    assert (here / "there" / "table.csv").exists()
    assert "wrote there/table.csv" in done.err


def test_output_of_many_tasks_is_prefixed_on_stderr(vmrun, client) -> None:
    running = job_view("running")
    client.job = FakeHandle(
        views=[running, running, job_view()],
        output=[[wrote("hal", 3)], [wrote("lo\nworld\n", 3), wrote("x\n", 1, "stderr")], [wrote("no newline", 2)]],
    )
    done = vmrun("submit", "job.py")
    assert "[3] hallo\n[3] world\n[1] x\n" in done.err
    assert "[2] no newline\n" in done.err
    assert done.out == "0\n1\n4\n9\n"


def test_no_logs_hides_the_output_of_tasks_and_not_the_reduces(vmrun, client) -> None:
    client.job.output = [[wrote("noise\n", 1), wrote("the table\n", 4, reduce=True)]]
    done = vmrun("submit", "job.py", "--no-logs")
    assert "noise" not in done.err + done.out
    assert done.out.startswith("the table\n")


@pytest.mark.parametrize("kind", ["script", "command"])
def test_a_programs_output_is_passed_on_byte_by_byte(vmrun, client, kind) -> None:
    client.job = FakeHandle(
        views=[job_view(kind=kind, tasks=TaskCounts(1, 1))],
        output=[[wrote("\x1b[31mred\x1b[0m no newline"), wrote("warn\n", stream="stderr")]],
        given=JobResults([None], []),
    )
    done = vmrun("submit", "job.py")
    assert done.out == "\x1b[31mred\x1b[0m no newline"
    assert "warn\n" in done.err


def test_failed_tasks_are_told_with_their_traceback_and_exit_6(vmrun, client) -> None:
    client.job = FakeHandle(
        views=[job_view("failed", tasks=TaskCounts(100, 90, 10))],
        given=JobResults([1] * 90 + [None] * 10, [failure(task) for task in range(90, 100)]),
    )
    done = vmrun("submit", "job.py")
    assert done.code == 6
    assert done.out == ""
    assert done.err.count("  ValueError: bad seed\n") == 3
    assert f"... and 7 more tasks: `vmrun result {JOB} --json` lists all" in done.err
    assert "error: 10 of 100 tasks failed\n" in done.err
    assert f"`vmrun logs {JOB} --task 90` shows its output; `vmrun result {JOB}` has the others' results" in done.err


@pytest.mark.parametrize(
    ("failed", "message"),
    [
        (failure(0, kind="exited", exit=3, type="", message="", traceback=""), "the script exited with code 3"),
        (failure(0, kind="signalled", exit=9, type="", message=""), "the script was killed by SIGKILL"),
        (failure(0, kind="oom", message="of 4 GB"), "the script ran out of memory: of 4 GB"),
    ],
)
def test_a_failing_script_exits_6_and_the_message_says_how(vmrun, client, failed, message) -> None:
    client.job = FakeHandle(
        views=[job_view("failed", kind="script", tasks=TaskCounts(1, 0, 1))], given=JobResults([None], [failed])
    )
    done = vmrun("submit", "job.py")
    assert done.code == 6
    assert f"error: {message}\n" in done.err


def test_a_job_that_failed_as_a_whole_says_why(vmrun, client) -> None:
    client.job = FakeHandle(
        views=[job_view("failed", error="no package named numpi", hint="did you mean numpy?")],
        given=JobResults([None] * 4, []),
    )
    done = vmrun("submit", "job.py")
    assert done.code == 6
    assert "error: no package named numpi\nhint: did you mean numpy?\n" in done.err


def test_a_cancelled_job_exits_8(vmrun, client) -> None:
    client.job = FakeHandle(views=[job_view("running"), job_view("cancelled")], given=JobResults([1, None], []))
    done = vmrun("submit", "job.py")
    assert done.code == 8
    assert f"error: job {JOB} was cancelled" in done.err


def test_control_characters_of_the_user_reach_the_terminal_only_escaped(vmrun, client) -> None:
    evil = "\x1b]0;owned\x07\rerror: forged\u202e"
    client.job = FakeHandle(
        views=[job_view("failed", name=evil)], given=JobResults([None], [failure(message=evil, traceback=evil)])
    )
    err = vmrun("submit", "job.py").err
    assert "\x1b" not in err
    assert "\x07" not in err
    assert "\r" not in err
    assert "\u202e" not in err
    assert "\\x1b]0;owned\\x07\\rerror: forged\\u202e" in err


# --- json ---


def test_json_has_one_document_on_stdout_and_output_on_stderr(vmrun, client) -> None:
    client.job.output = [[wrote("the table\n", 4, reduce=True)]]
    client.job.given = JobResults([1], [], reduced=7, has_reduced=True)
    client.job.files = {"a.csv": ""}
    done = vmrun("submit", "job.py", "--json")
    job = done.document["job"]
    assert set(job) >= {"id", "name", "state", "tasks", "vms", "usd", "created", "ended"}
    assert job["state"] == "done"
    assert job["tasks"] == {"total": 4, "done": 4, "failed": 0, "running": 0}
    assert done.document["reduced"] == 7
    assert done.document["outputs"] == [f"vmrun-output/{JOB}/a.csv"]
    assert "the table\n" in done.err


def test_json_of_a_failed_job_has_the_error_and_the_job(vmrun, client) -> None:
    client.job = FakeHandle(views=[job_view("failed")], given=JobResults([1, None], [failure()]))
    done = vmrun("submit", "job.py", "--json")
    assert done.code == 6
    assert done.document["error"]["code"] == "job-failed"
    assert done.document["job"]["state"] == "failed"
    assert done.document["errors"][0]["traceback"].startswith("Traceback")


def test_detach_prints_the_id_alone_and_says_how_to_come_back(vmrun, client) -> None:
    client.job.views = [job_view("pending", vms=())]
    done = vmrun("submit", "job.py", "--detach")
    assert done.code == 0
    assert done.out == f"{JOB}\n"
    for line in ("vmrun wait", "vmrun logs -f", "vmrun result", "vmrun cancel"):
        assert f"{line} {JOB}" in done.err
    assert client.calls[0][2] is True
    assert client.job.calls == []


def test_detach_as_json_is_the_jobs_document(vmrun, client) -> None:
    client.job.views = [job_view("pending", vms=())]
    done = vmrun("submit", "job.py", "--detach", "--json")
    assert done.document["job"]["id"] == JOB
    assert done.document["job"]["ended"] is None


def test_dry_run_shows_offers_and_price_and_submits_nothing(vmrun, client) -> None:
    done = vmrun("submit", "job.py", "--dry-run")
    assert done.code == 0
    assert [call[0] for call in client.calls] == ["plan"]
    for text in (
        "4 tasks on docker with 2 workers, 4 threads each, at most 8 GB each.",
        "$0.5000 an hour, at most $12.00",
        "2-cpu",
        "maximum lifetime: 24h",
    ):
        assert text in done.out


def test_dry_run_as_json(vmrun) -> None:
    plan = vmrun("submit", "job.py", "--dry-run", "--json").document["plan"]
    assert plan["usd_at_most"] == 12.0
    assert (plan["workers"], plan["threads_per_task"], plan["task_memory"]) == (2, 4, 8 * 10**9)
    assert plan["offers"][0]["instance_type"] == "2-cpu"
    assert plan["deadlines"] == {"maximum lifetime": 86400.0}


# --- the machine, after all is told ---


def interrupt() -> None:
    raise KeyboardInterrupt


def test_all_is_told_before_the_machine_is_given_back(vmrun, client, capsys) -> None:
    told = []
    client.settling = lambda: told.append(capsys.readouterr())
    assert vmrun("submit", "job.py").code == 0
    assert told[0].out == "0\n1\n4\n9\n"
    assert "done: 4 tasks" in told[0].err
    assert client.calls[-1] == ("settle", JOB)


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_ctrl_c_while_the_machine_is_given_back_leaves_it_to_itself(vmrun, client, options) -> None:
    client.settling = interrupt
    done = vmrun("submit", "job.py", *options)
    # All that was asked for is done
    assert done.code == 0
    assert done.document["ok"] if options else done.out == "0\n1\n4\n9\n"
    assert "left before the machine was seen to be gone; it ends by itself" in done.err
    assert "Detached" not in done.err


def test_a_machine_that_cannot_be_given_back_from_here_does_not_make_a_job_fail_that_is_done(vmrun, client) -> None:
    def away() -> None:
        raise StoreUnavailable("no answer")

    client.settling = away
    done = vmrun("submit", "job.py")
    assert (done.code, done.out) == (0, "0\n1\n4\n9\n")
    assert "ends by itself: no answer" in done.err


def test_who_leaves_while_results_come_home_does_not_wait_for_the_machine(vmrun, client, monkeypatch) -> None:
    def collect(directory: str) -> JobResults:
        raise KeyboardInterrupt

    monkeypatch.setattr(client.job, "collect", collect)
    done = vmrun("submit", "job.py")
    assert done.code == 130
    assert f"job {JOB} has ended" in done.err
    assert f"`vmrun result {JOB}`" in done.err
    assert ("settle", JOB) not in client.calls


def test_a_machine_is_given_back_although_results_cannot_be_brought_home(vmrun, client, monkeypatch) -> None:
    def collect(directory: str) -> JobResults:
        raise StoreUnavailable("no answer")

    monkeypatch.setattr(client.job, "collect", collect)
    assert vmrun("submit", "job.py").code == 3
    assert client.calls[-1] == ("settle", JOB)


# --- leaving ---


def test_ctrl_c_detaches_and_says_how_to_come_back_and_how_to_cancel(vmrun, client) -> None:
    client.job.views, client.job.between = [job_view("running"), job_view()], interrupt
    done = vmrun("submit", "job.py")
    assert done.code == 130
    assert f"Detached. Job {JOB} goes on" in done.err
    for line in ("vmrun wait", "vmrun logs -f", "vmrun result", "vmrun cancel"):
        assert f"{line} {JOB}" in done.err
    assert ("cancel",) not in client.job.calls
    # What it may still need of machines another process sees to.
    assert client.calls.count(("leave", JOB)) == 1


def test_ctrl_c_as_json(vmrun, client) -> None:
    client.job.views, client.job.between = [job_view("running"), job_view()], interrupt
    done = vmrun("submit", "job.py", "--json")
    assert done.code == 130
    assert done.document["error"]["code"] == "interrupted"
    assert done.document["job"] == {"id": JOB}


def test_ctrl_c_while_the_machine_comes_up_knows_the_job(vmrun, client) -> None:
    client.trouble = KeyboardInterrupt(JOB)
    done = vmrun("submit", "job.py")
    assert done.code == 130
    assert f"vmrun wait {JOB}" in done.err


def test_ctrl_c_before_there_is_a_job_says_that_nothing_runs(vmrun, client) -> None:
    client.trouble = KeyboardInterrupt()
    done = vmrun("submit", "job.py")
    assert done.code == 130
    assert "interrupted before the job was submitted" in done.err


def test_plain_progress_is_a_line_when_something_happens_and_not_one_per_look(vmrun, client, clock) -> None:
    running = [job_view("running", tasks=TaskCounts(1000, n, 0, 2)) for n in range(0, 1000, 10)]
    client.job.views = [*running, job_view(tasks=TaskCounts(1000, 1000))]
    client.job.between = lambda: clock.sleep(0.2)
    done = vmrun("submit", "job.py")
    lines = [line for line in done.err.splitlines() if "tasks done" in line]
    assert 3 <= len(lines) <= 8
    assert "50/s" in lines[-2]
    assert "left" in lines[-2]
    assert "2 running" in lines[-2]
