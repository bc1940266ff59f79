"""`vmrun status`."""

from __future__ import annotations

import json

import pytest

from tests.unit.cli.fakes import JOB, NOW, VM, FakeHandle, job_view, vm_view
from vmrun.core.views import TaskCounts


def test_jobs_and_vms_with_when_and_why_they_end(vmrun, client) -> None:
    client.job.views = [job_view("running", tasks=TaskCounts(200, 120, 3, 8))]
    done = vmrun("status")
    assert done.code == 0
    assert done.err == ""
    assert "120/200, 3 failed, 8 running" in done.out
    assert "in 12m because idle" in done.out
    assert "8 tasks run" in done.out
    assert JOB in done.out
    assert VM in done.out
    assert "\x1b" not in done.out


def test_nothing_yet(vmrun, client, monkeypatch) -> None:
    client.vm_views = []
    monkeypatch.setattr(client, "jobs", lambda limit: [])
    assert vmrun("status").out == "No jobs yet. `vmrun submit job.py` runs one.\n\nNo VMs.\n"


def test_document_of_all(vmrun) -> None:
    document = vmrun("status", "--json").document
    assert set(document) == {"schema", "ok", "jobs", "vms", "pools"}
    (vm,) = document["vms"]
    assert set(vm) >= {
        *("id", "on", "instance_type", "region", "state", "job", "busy_because"),
        *("ends_at", "ends_because", "usd_per_hour"),
    }
    assert vm["ends_at"] == NOW + 720
    assert vm["usd_per_hour"] == 0.0


def test_document_of_one(vmrun, client) -> None:
    client.job.views = [job_view("failed", error="no package named numpi", hint="did you mean numpy?")]
    done = vmrun("status", JOB, "--json")
    job = done.document["job"]
    assert done.code == 0
    assert set(job) >= {"id", "name", "state", "tasks", "vms", "usd", "created", "ended", "error"}
    assert job["error"] == "no package named numpi"
    assert [vm["id"] for vm in job["vms"]] == [VM]


def test_what_is_not_known_is_null(vmrun, client) -> None:
    client.job.views = [job_view("pending", vms=(vm_view(ends_at=0.0, usd_per_hour=None, job=""),))]
    job = vmrun("status", JOB, "--json").document["job"]
    assert job["ended"] is None
    assert job["vms"][0]["ends_at"] is None
    assert job["vms"][0]["usd_per_hour"] is None
    assert job["vms"][0]["job"] is None
    assert "error" not in job


def test_one_job_in_text(vmrun, client) -> None:
    client.job.views = [job_view("failed", error="bad\x1b[2J", hint="look")]
    done = vmrun("status", JOB)
    assert "state    failed" in done.out
    assert "error    bad\\x1b[2J" in done.out
    assert "created  1m ago" in done.out or "created  2m ago" in done.out


def test_unknown_job(vmrun) -> None:
    done = vmrun("status", "nope")
    assert done.code == 2
    assert "there is no job 'nope'" in done.err


def test_an_ambiguous_looking_emoji_name_keeps_columns_aligned(vmrun, client) -> None:
    client.job.views = [job_view(name="🚀🚀")]
    header, row = vmrun("status").out.splitlines()[:2]
    # Each rocket takes two columns of the terminal and one character.
    assert header.index("STATE") == row.index("done") + 2


def test_watch_of_a_job_ends_with_it_and_shows_changes_only(vmrun, client, clock) -> None:
    running, done_view = job_view("running"), job_view()
    views = iter([running, running, running, done_view])
    client.job = FakeHandle()
    client.job.status = lambda: next(views)  # type: ignore[method-assign]
    done = vmrun("status", JOB, "--watch", "--json")
    assert [json.loads(line)["job"]["state"] for line in done.out.splitlines()] == ["running", "done"]
    assert clock.slept == [2.0, 2.0, 2.0]


def test_watch_of_all_goes_on_until_ctrl_c(vmrun, clock, monkeypatch) -> None:
    def sleep(seconds: float) -> None:
        clock.slept.append(seconds)
        if len(clock.slept) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(clock, "sleep", sleep)
    done = vmrun("status", "--watch")
    assert done.code == 130
    assert done.out.count("STATE") == 2, "one table of jobs and one of VMs, as nothing changed"


@pytest.mark.parametrize("limit", ["0", "-1", "x", "100000"])
def test_limit_is_checked(vmrun, limit) -> None:
    done = vmrun("status", "--limit", limit)
    assert done.code == 2
    assert "--limit" in done.err
