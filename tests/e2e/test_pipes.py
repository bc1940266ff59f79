"""Whoever reads what vmrun writes may leave, be absent from the start, or be a full disk."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.shell import VMRUN, Shell, processes, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

#: As a shell reports a program whose reader went away.
READER_GONE = 141
#: Far more than a pipe holds.
ROWS = 20_000


@dataclass
class Ended:
    """How a pipeline ended."""

    codes: list[int]
    out: str
    said: str


def pipeline(shell: Shell, text: str) -> Ended:
    """Run a shell's command line; the exit code of each of its parts."""
    done = subprocess.run(
        ["bash", "-c", f'{text}; codes=("${{PIPESTATUS[@]}}"); echo "${{codes[@]}}" >"$CODES"'],
        cwd=shell.home,
        env={**shell.env, "PATH": f"{Path(VMRUN).parent}:{os.environ['PATH']}", "CODES": str(shell.home / "codes")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    codes = [int(code) for code in (shell.home / "codes").read_text().split()]
    for trouble in ("Traceback", "Exception ignored", "BrokenPipeError", "unexpected"):
        assert trouble not in done.stderr, done.stderr
    return Ended(codes, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A shell with one job that is done, of many values and much output."""
    # Not below a directory with a long name: sockets there would have too long a path.
    shell = Shell(tmp_path_factory.mktemp("h"))
    shell.write(
        "many.py", f"import vmrun\n\n@vmrun.job(over=range({ROWS}))\ndef f(x):\n    print('line', x)\n    return x\n"
    )
    shell.run("submit", "--no-logs", "many.py")
    return shell


@pytest.mark.parametrize(
    ("verb", "first"),
    [("status", "JOB"), ("logs many", "["), ("result many", "0"), ("logs many --json", "{"), ("--help", "Usage")],
)
def test_a_reader_that_takes_one_line_ends_it_quietly(used: Shell, verb: str, first: str) -> None:
    ended = pipeline(used, f"vmrun {verb} | head -1")
    assert ended.out.startswith(first)
    # What fits into a pipe is written before anybody can notice that nobody reads.
    assert ended.codes[0] in ((READER_GONE,) if verb in ("logs many", "result many") else (0, READER_GONE))
    assert ended.said == ""


def test_a_submit_whose_reader_leaves_says_that_the_job_goes_on(shell: Shell) -> None:
    shell.write("rows.py", f"for row in range({ROWS}):\n    print('row', row)\n")
    ended = pipeline(shell, "vmrun submit rows.py | head -1")
    assert ended.out == "row 0\n"
    assert ended.codes[0] == READER_GONE
    (job,) = shell.ask("status")["jobs"]
    assert f"vmrun wait {job['id']}" in ended.said
    assert shell.wait(job["id"])["state"] == "done"
    assert len(shell.run("logs", job["id"]).stdout.splitlines()) == ROWS
    until(lambda: not processes(str(shell.home)), 30, "the machine ends by itself")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&-", "<&- >&- 2>&-"])
def test_a_submit_works_with_descriptors_closed(shell: Shell, closed: str) -> None:
    ended = pipeline(shell, f"vmrun submit -- sh -c 'echo out$((6*7)); echo err$((6*7)) >&2' {closed}")
    assert ended.codes == [0]
    assert ended.out == ("" if " >&-" in f" {closed}" else "out42\n")
    assert ("err42\n" in ended.said) is ("2>&-" not in closed)
    (job,) = shell.ask("status")["jobs"]
    assert job["state"] == "done"
    # What was written went nowhere else: the first file that was opened got the number of what was closed.
    logs = shell.run("logs", job["id"])
    assert (logs.stdout, logs.stderr) == ("out42\n", "err42\n")
    until(lambda: not processes(str(shell.home)), 30, "the machine has ended")
    output = shell.home / ".local" / "share" / "vmrun" / "store" / "jobs" / job["id"] / "output"
    files = [path for path in shell.home.rglob("*") if path.is_file() and output not in path.parents]
    assert not [path for path in files if b"out42" in path.read_bytes() or b"err42" in path.read_bytes()]


@pytest.mark.parametrize("verb", ["status", "status --json", "result many", "--help"])
def test_looking_works_without_an_output(used: Shell, verb: str) -> None:
    ended = pipeline(used, f"vmrun {verb} >&-")
    assert (ended.codes, ended.out, ended.said) == ([0], "", "")


def test_a_mistake_is_told_by_the_exit_code_when_nobody_listens(shell: Shell) -> None:
    assert pipeline(shell, "vmrun submit nojob.py >&- 2>&-").codes == [2]
    assert pipeline(shell, "vmrun submit nojob.py --json >&-").codes == [2]


@pytest.mark.parametrize("verb", ["status", "status --json", "result many"])
def test_a_full_disk_is_told(used: Shell, verb: str) -> None:
    ended = pipeline(used, f"vmrun {verb} >/dev/full")
    assert ended.codes == [1]
    assert "No space left on device" in ended.said
    assert "hint: " in ended.said


def test_a_job_whose_output_finds_a_full_disk_goes_on(shell: Shell) -> None:
    ended = pipeline(shell, "vmrun submit --json -- echo hello >/dev/full")
    assert ended.codes == [1]
    assert "No space left on device" in ended.said
    (job,) = shell.ask("status")["jobs"]
    assert shell.wait(job["id"])["state"] == "done"


def test_one_document_stays_one_document_in_a_pipe(used: Shell) -> None:
    ended = pipeline(used, "vmrun result many --json | cat")
    assert json.loads(ended.out)["results"] == list(range(ROWS))
    assert ended.codes == [0, 0]
