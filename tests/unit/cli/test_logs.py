"""`vmrun logs`."""

from __future__ import annotations

import json

import pytest

from tests.unit.cli.fakes import JOB, job_view, wrote
from vmrun.core.errors import StoreUnavailable
from vmrun.core.views import OutputChunk, TaskCounts

CHUNKS = [[wrote("one\ntw", 1), wrote("other\n", 2, "stderr"), wrote("o\n", 1), wrote("sum\n", 3, reduce=True)]]


def test_many_tasks_are_prefixed_line_by_line(vmrun, client) -> None:
    client.job.output = CHUNKS
    done = vmrun("logs", JOB)
    assert done.out == "[1] one\n[1] two\n[reduce] sum\n"
    assert done.err == "[2] other\n"


def test_one_task_is_verbatim(vmrun, client) -> None:
    client.job.output = CHUNKS
    done = vmrun("logs", JOB, "--task", "1")
    assert done.out == "one\ntwo\n"
    assert ("logs", False, 1) in client.job.calls


@pytest.mark.parametrize("kind", ["script", "command"])
def test_a_script_is_verbatim(vmrun, client, kind) -> None:
    client.job.views = [job_view(kind=kind)]
    client.job.output = [[wrote("a\x1b[1mb"), wrote("c", stream="stderr")]]
    done = vmrun("logs", JOB, "-f")
    assert (done.out, done.err) == ("a\x1b[1mb", "c")
    assert ("logs", True, None) in client.job.calls


def test_one_document(vmrun, client) -> None:
    client.job.output = [
        [OutputChunk(0, 1, "stdout", "aä".encode()[:2]), OutputChunk(0, 1, "stdout", "ä".encode()[1:])]
    ]
    document = vmrun("logs", JOB, "--json").document
    assert [piece["text"] for piece in document["output"]] == ["a", "ä"]
    assert document["job"] == JOB
    assert set(document["output"][0]) == {"task", "attempt", "stream", "reduce", "text"}


def test_one_document_of_nothing(vmrun) -> None:
    assert vmrun("logs", JOB, "--json").document["output"] == []


def test_followed_as_json_there_is_a_document_per_piece(vmrun, client) -> None:
    client.job.output = CHUNKS
    documents = [json.loads(line) for line in vmrun("logs", JOB, "--json", "-f").out.splitlines()]
    assert [document["text"] for document in documents] == ["one\ntw", "other\n", "o\n", "sum\n"]
    assert all(document["schema"] == 1 and document["ok"] for document in documents)


def test_a_store_that_fails_half_way_still_gives_one_document(vmrun, client, monkeypatch) -> None:
    def logs(**_: object):
        yield wrote("one\n", 1)
        raise StoreUnavailable("no answer", hint="try again")

    monkeypatch.setattr(client.job, "logs", logs)
    done = vmrun("logs", JOB, "--json")
    assert done.code == 3
    assert done.document["error"]["code"] == "store-unavailable"
    assert done.document["error"]["retryable"] is True
    assert len(done.document["output"]) == 1


def test_a_task_that_the_job_does_not_have(vmrun, client) -> None:
    done = vmrun("logs", JOB, "--task", "4")
    assert done.code == 2
    assert "has 4 tasks, and none has number 4" in done.err
    assert "from 0 to 3" in done.err
    client.job.views = [job_view("running", kind="open", tasks=TaskCounts(2))]
    assert vmrun("logs", JOB, "--task", "4").code == 0
