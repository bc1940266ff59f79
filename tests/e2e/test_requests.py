"""What a job costs in requests to the store, counted at a real S3-compatible server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.s3 import s3_server
from tests.support.shell import Shell

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

#: Writes that 10,000 no-op tasks may cost, submission and machine included.
WRITES_MAX = 60


@pytest.mark.catalogue(58)
def test_ten_thousand_no_op_tasks_cost_few_writes(shell: Shell, tmp_path: Path) -> None:
    shell.write("noop.py", "import vmrun\n\n@vmrun.job(over=range(10_000))\ndef f(x):\n    return None\n")
    with s3_server("127.0.0.1", tmp_path / "s3.log") as server:
        server.configure(shell)
        shell.run("status")  # the bucket's first use, with its probe, is not part of a job
        before = server.requests()
        job = shell.ask("submit", "noop.py")["job"]
        spent = server.requests() - before
        assert job["tasks"]["done"] == 10_000
        writes = spent["PUT"] + spent["POST"] + spent["DELETE"]
        print(f"10,000 no-op tasks: {writes} writes, {spent['GET']} reads")
        assert 0 < writes <= WRITES_MAX
        assert shell.ask("result", job["id"])["results"] == [None] * 10_000
