"""What a job costs in requests to the store, counted at a real S3-compatible server."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.s3 import s3_server
from tests.support.shell import Shell

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

#: Writes that 10,000 no-op tasks may cost, submission and machine included; and signs of life, of which there is one a
#: second, however long a busy computer takes.
WRITES_MAX, BEATS, BEAT = 50, "/heartbeats/", 1.0


@pytest.mark.catalogue(58)
def test_ten_thousand_no_op_tasks_cost_few_writes(shell: Shell, tmp_path: Path) -> None:
    shell.write("noop.py", "import vmrun\n\n@vmrun.job(over=range(10_000))\ndef f(x):\n    return None\n")
    with s3_server("127.0.0.1", tmp_path / "s3.log") as server:
        server.configure(shell)
        shell.run("status")  # the bucket's first use, with its probe, is not part of a job
        before, began = server.requests(BEATS), time.monotonic()
        job = shell.ask("submit", "noop.py")["job"]
        took = time.monotonic() - began
        spent = server.requests(BEATS) - before
        assert job["tasks"]["done"] == 10_000
        beats = (server.requests() - server.requests(BEATS))["PUT"]
        writes = spent["PUT"] + spent["POST"] + spent["DELETE"]
        print(f"10,000 no-op tasks: {writes} writes, {spent['GET']} reads, {beats} signs of life in {took:.1f} s")
        assert 0 < writes <= WRITES_MAX
        # What it does is told at once, besides.
        assert 0 < beats <= took / BEAT + 10
        assert shell.ask("result", job["id"])["results"] == [None] * 10_000
