"""`vmrun result`."""

from __future__ import annotations

import json
import pickle

import pytest

from tests.unit.cli.fakes import JOB, failure, job_view
from vmrun.core.views import JobResults


def test_all_values_go_to_a_pipe(vmrun, client) -> None:
    client.job.given = JobResults(list(range(100)), [])
    done = vmrun("result", JOB)
    assert done.code == 0
    assert done.out.splitlines() == [str(number) for number in range(100)]


def test_files_come_home(vmrun, client, here) -> None:
    client.job.files = {"a.csv": "1\n"}
    vmrun("result", JOB)
    assert (here / "vmrun-output" / JOB / "a.csv").exists()
    vmrun("result", JOB, "-o", "there/")
    assert (here / "there" / "a.csv").exists()


def test_document(vmrun, client) -> None:
    client.job.given = JobResults([1, {2, 3}, float("nan"), "x"], [], reduced=[1], has_reduced=True)
    client.job.files = {"a.csv": "1\n"}
    document = vmrun("result", JOB, "--json").document
    assert document["results"] == [1, None, None, "x"]
    assert document["unjsonable"] == [1, 2]
    assert "-o FILE.pkl" in document["note"]
    assert document["reduced"] == [1]
    assert document["errors"] == []
    assert document["outputs"] == [f"vmrun-output/{JOB}/a.csv"]


def test_document_of_a_job_without_reduce_has_no_reduced(vmrun) -> None:
    document = vmrun("result", JOB, "--json").document
    assert "reduced" not in document
    assert "unjsonable" not in document


def test_a_reduced_value_that_json_cannot_hold_is_null_and_said_so(vmrun, client) -> None:
    client.job.given = JobResults([1], [], reduced=object(), has_reduced=True)
    document = vmrun("result", JOB, "--json").document
    assert document["reduced"] is None
    assert document["reduced_unjsonable"] is True


def test_values_that_fight_back_are_null(vmrun, client) -> None:
    class Sour(dict):
        def items(self):
            raise RuntimeError

    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    client.job.given = JobResults([Sour(a=1), deep, 10**5000, b"x"], [])
    assert vmrun("result", JOB, "--json").document["unjsonable"] == [0, 1, 2, 3]


def test_failed_job_tells_why_and_still_gives_the_others_results(vmrun, client) -> None:
    client.job.views = [job_view("failed")]
    client.job.given = JobResults([1, None, 9], [failure(1)])
    done = vmrun("result", JOB)
    assert done.code == 6
    assert done.out == "1\nNone\n9\n"
    assert done.err.startswith("  Traceback")
    assert "error: task 1 raised ValueError: bad seed\n" in done.err
    document = vmrun("result", JOB, "--json").document
    assert document["results"] == [1, None, 9]
    (error,) = document["errors"]
    assert set(error) >= {"task", "kind", "type", "message", "traceback"}
    assert document["ok"] is True


def test_a_job_that_runs_is_not_waited_for(vmrun, client) -> None:
    client.job.views = [job_view("running")]
    done = vmrun("result", JOB)
    assert done.code == 2
    assert f"job {JOB} is still running" in done.err
    assert f"vmrun wait {JOB}" in done.err
    error = vmrun("result", JOB, "--json").document["error"]
    assert error["code"] == "not-ended"
    assert error["retryable"] is True
    assert client.job.calls == []


def test_partial_takes_what_there_is(vmrun, client) -> None:
    client.job.views = [job_view("running")]
    client.job.given = JobResults([1, None], [])
    done = vmrun("result", JOB, "--partial")
    assert done.code == 0
    assert done.out == "1\nNone\n"


def test_saved_to_a_file(vmrun, here) -> None:
    assert vmrun("result", JOB, "-o", "values.pkl").code == 0
    assert pickle.loads((here / "values.pkl").read_bytes()) == [0, 1, 4, 9]
    done = vmrun("result", JOB, "-o", "values.jsonl")
    assert [json.loads(line) for line in (here / "values.jsonl").read_text().splitlines()] == [0, 1, 4, 9]
    assert done.out == ""
    assert "saved the values to values.jsonl" in done.err
    assert vmrun("result", JOB, "-o", "values.pkl", "--json").document["saved"] == "values.pkl"


def test_a_directory_may_have_any_name(vmrun, client, here) -> None:
    (here / "results.pkl").mkdir()
    client.job.files = {"a.csv": ""}
    assert vmrun("result", JOB, "-o", "results.pkl").code == 0
    assert (here / "results.pkl" / "a.csv").exists()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("values.csv", "neither a directory nor a .pkl or .jsonl file"),
        ("file", "neither a directory nor a .pkl or .jsonl file"),
        ("none/values.pkl", "there is no directory 'none'"),
        ("", "not a path"),
    ],
)
def test_bad_output(vmrun, client, here, path, message) -> None:
    (here / "file").write_text("")
    done = vmrun("result", JOB, "-o", path)
    assert done.code == 2
    assert message in done.err
    assert client.job.calls == []


def test_cancelled_job(vmrun, client) -> None:
    client.job.views = [job_view("cancelled")]
    done = vmrun("result", JOB)
    assert done.code == 8
    assert done.out == "0\n1\n4\n9\n"


def test_a_script_points_to_its_output(vmrun, client) -> None:
    client.job.views = [job_view(kind="script")]
    client.job.given = JobResults([None], [])
    done = vmrun("result", JOB)
    assert (done.code, done.out) == (0, "")
    assert f"`vmrun logs {JOB}`" in done.err
