"""Pipes whose reader leaves, streams that are closed, full disks, terminals and Ctrl-C: in processes of their own."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.cli.fakes import JOB

ROOT = Path(__file__).resolve().parents[3]
LIMIT = 120.0


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.py").write_text("")
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "VMRUN_STATE_DIR": str(tmp_path / "state"), "TERM": "xterm"}
    environ.pop("PYTHONUNBUFFERED", None)
    return environ


def words(scenario: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.unit.cli.program", scenario, *arguments]


def shell(environ: dict[str, str], scenario: str, arguments: str, rest: str) -> subprocess.CompletedProcess[str]:
    """A command line with what the shell does to its streams."""
    script = f'set -o pipefail; "$@" {arguments} {rest}'
    command = ["bash", "-c", script, "bash", *words(scenario)]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, env=environ, check=False)


# --- readers that leave, streams that are closed ---


def test_head_ends_it_quietly(environ) -> None:
    done = shell(environ, "many", f"result {JOB}", "| head -1")
    assert done.stdout == f"'{'x' * 100}'\n"
    assert done.stderr == ""
    assert done.returncode == 141


@pytest.mark.parametrize(
    ("arguments", "unbuffered"),
    [(f"result {JOB} --json", ""), ("status", "1"), ("--help", "1"), ("submit --help", "")],
)
def test_a_reader_that_is_gone_already(environ, arguments, unbuffered) -> None:
    environ["PYTHONUNBUFFERED"] = unbuffered
    reader, writer = os.pipe()
    os.close(reader)
    command = words("many", *arguments.split())
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=LIMIT, env=environ, check=False)
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode == 141


def test_a_script_whose_output_nobody_reads_any_more_goes_on_and_that_is_said(environ) -> None:
    done = shell(environ, "chatty", "submit job.py", "| head -1")
    assert done.stdout == "y" * 1000 + "\n"
    assert f"stdout was closed; job {JOB} goes on" in done.stderr
    assert f"vmrun cancel {JOB}" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 141


@pytest.mark.parametrize("rest", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(environ, rest) -> None:
    done = shell(environ, "plain", "submit job.py", rest)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


def test_a_file_opened_later_is_not_taken_for_a_closed_stdout(environ, tmp_path) -> None:
    done = shell(environ, "defect", "status", ">&- 2>&-")
    assert done.returncode == 1
    (crash,) = (tmp_path / "state" / "crashes").iterdir()
    assert crash.read_text().startswith("vmrun ")
    assert "error:" not in crash.read_text()


@pytest.mark.parametrize("arguments", ["status", "status --json"])
def test_a_full_disk_is_told(environ, arguments) -> None:
    done = shell(environ, "plain", arguments, "> /dev/full")
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot write to the standard output: No space left on device\n")
    assert "Traceback" not in done.stderr


def test_text_that_the_encoding_does_not_know_is_escaped(environ) -> None:
    environ |= {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C.UTF-8"}
    done = shell(environ, "plain", "submit job.py --name 🚀 --json --memory 1x🚀", "")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["message"].startswith("--memory: '1x\U0001f680'")
    done = shell(environ, "plain", "submit job.py --memory 1x🚀", "")
    assert "'1x\\U0001f680' is not a size" in done.stderr


def test_no_terminal_no_colour_no_control_characters(environ) -> None:
    done = shell(environ, "slow", "submit job.py", "")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr
    assert "\r" not in done.stderr
    assert "half line\n" in done.stdout


# --- Ctrl-C ---


def test_ctrl_c_during_an_attached_submit(environ) -> None:
    with subprocess.Popen(
        words("endless", "submit", "job.py"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environ,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        while "tasks done" not in first:
            first = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    for line in ("vmrun wait", "vmrun logs -f", "vmrun result", "vmrun cancel"):
        assert f"{line} {JOB}" in err


# --- terminals ---


def terminal(
    environ: dict[str, str], command: list[str], *, columns: int = 100, until: Callable[[str], bool] | None = None
) -> tuple[str, int]:
    """What a program shows on a terminal, and its exit code; with `until`, Ctrl-C is typed once that holds."""
    parent, child = pty.openpty()
    os.set_blocking(parent, False)
    environ = {**environ, "COLUMNS": str(columns)}
    process = subprocess.Popen(command, stdin=child, stdout=child, stderr=child, env=environ, start_new_session=True)
    os.close(child)
    shown, deadline = b"", time.monotonic() + LIMIT
    try:
        while time.monotonic() < deadline:
            select.select([parent], [], [], 0.5)
            try:
                data = os.read(parent, 65536)
            except BlockingIOError:
                continue
            except OSError:
                break
            if not data:
                break
            shown += data
            if until is not None and until(shown.decode("utf-8", "replace")):
                until = None
                process.send_signal(signal.SIGINT)
        code = process.wait(timeout=LIMIT)
    finally:
        process.kill()
        process.wait()
        os.close(parent)
    return shown.decode("utf-8", "replace"), code


def screen_of(shown: str) -> list[str]:
    """The lines that a terminal would show in the end: enough of its language for what rich sends."""
    lines, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[[0-9;?]*[a-zA-Z]|\r|\n|[^\x1b\r\n]+", shown):
        if token == "\r":
            column = 0
        elif token == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif token.startswith("\x1b["):
            number = int(re.sub(r"\D", "", token) or "1")
            if token.endswith("A"):
                row = max(row - number, 0)
            elif token.endswith("K"):
                lines[row] = ""
        else:
            lines[row] = lines[row][:column].ljust(column) + token + lines[row][column + len(token) :]
            column += len(token)
    return lines


def test_a_terminal_has_live_progress_that_goes_away(environ) -> None:
    shown, code = terminal(environ, words("slow", "submit", "job.py"))
    assert code == 0
    assert "█" in shown
    assert "tasks done" in shown
    left = screen_of(shown)
    assert not any("tasks done" in line for line in left)
    assert "half line" in left, "a line of the program that was written in two halves is whole"
    assert [line for line in left if line][-1].startswith("done: 50 tasks")
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h"), "the cursor comes back"


def test_ctrl_c_at_a_terminal_leaves_it_in_order(environ) -> None:
    shown, code = terminal(environ, words("endless", "submit", "job.py"), until=lambda text: "tasks done" in text)
    assert code == 130
    left = screen_of(shown)
    assert any(line.startswith(f"Detached. Job {JOB}") for line in left)
    assert not any("tasks done" in line for line in left)
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h")


def test_no_color_and_dumb_terminals_are_honoured(environ) -> None:
    assert "\x1b[32m" in terminal(environ, words("plain", "status"))[0]
    assert "\x1b" not in terminal({**environ, "NO_COLOR": "1"}, words("plain", "status"))[0]
    assert "\x1b" not in terminal({**environ, "TERM": "dumb"}, words("plain", "submit", "job.py"))[0]


@pytest.mark.parametrize("columns", [20, 80])
def test_no_line_is_wider_than_the_terminal_where_that_can_be(environ, columns) -> None:
    shown, code = terminal({**environ, "NO_COLOR": "1"}, words("plain", "status"), columns=columns)
    assert code == 0
    lines = shown.replace("\r", "").splitlines()
    if columns == 80:
        assert max(len(line) for line in lines) <= columns
        assert lines[0].startswith("JOB  ")
    else:
        assert f"JOB {JOB}" in lines, "one cell per line"


def test_an_ascii_terminal_gets_ascii(environ) -> None:
    environ |= {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    shown, code = terminal(environ, words("slow", "submit", "job.py"))
    assert code == 0
    assert shown.isascii()
    assert "####" in shown


def test_status_watch_at_a_terminal(environ) -> None:
    shown, code = terminal(environ, words("plain", "status", "--watch"), until=lambda text: "ENDS" in text)
    assert code == 130
    assert "Traceback" not in shown
