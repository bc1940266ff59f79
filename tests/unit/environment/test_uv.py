"""Running uv: lines as they come, limits, and what its errors mean."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from vmrun.core.clock import SystemClock
from vmrun.core.errors import UsageError, VmrunError
from vmrun.environment.uv import (
    UvResult,
    UvRun,
    explain,
    find_uv,
    index_variables,
    missing_python,
    run_uv,
    uv_environment,
)


def program(directory: Path, text: str) -> str:
    path = directory / "uv"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def run(directory: Path, text: str, timeout: float = 50.0, **more: object) -> tuple[UvResult, list[str]]:
    lines: list[str] = []
    how = UvRun(program(directory, text), {"PATH": os.environ["PATH"]}, str(directory), timeout, lines.append, **more)
    return run_uv(how, ["pip", "install"]), lines


def test_the_real_one_is_found_and_runs(tmp_path: Path) -> None:
    lines: list[str] = []
    result = run_uv(UvRun(find_uv(), {}, str(tmp_path), 50.0, lines.append), ["--version"])
    assert result.exit_code == 0
    assert lines[0].startswith("uv ")


def test_lines_of_both_streams_are_passed_on_and_kept(tmp_path: Path) -> None:
    result, lines = run(tmp_path, 'echo "$@"; echo; echo warning >&2; printf "no end"; exit 3')
    assert lines == ["--color never --no-progress pip install", "warning", "no end"]
    assert (result.exit_code, result.lines) == (3, tuple(lines))


def test_of_many_lines_the_last_are_kept(tmp_path: Path) -> None:
    result, lines = run(tmp_path, "seq 5000")
    assert len(lines) == 5000
    assert (len(result.lines), result.lines[-1]) == (400, "5000")


def test_a_line_is_there_before_the_program_ends(tmp_path: Path) -> None:
    """The program goes on only when its first line has been seen."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    seen: list[str] = []

    def progress(line: str) -> None:
        seen.append(line)
        if line == "first":
            gate.write_text("go\n")

    how = UvRun(program(tmp_path, 'echo first; read x < gate; echo "$x"'), {}, str(tmp_path), 50.0, progress)
    assert run_uv(how, []).exit_code == 0
    assert seen == ["first", "go"]


def test_a_program_that_hangs_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    os.mkfifo(alive)
    reader = os.open(alive, os.O_RDONLY | os.O_NONBLOCK)
    try:
        result, lines = run(
            tmp_path, "exec 3> alive; echo hanging; sleep 600 & sleep 600", clock=AfterLine(), timeout=1.0
        )
        assert (result.exit_code, lines) == (None, ["hanging"])
        os.set_blocking(reader, True)
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)


class AfterLine(SystemClock):
    """Asked three times (at the start, for the first line, for the second), the last time it is too late."""

    def __init__(self) -> None:
        self.asked = 0

    def monotonic(self) -> float:
        self.asked += 1
        return 0.0 if self.asked < 2 else -50.0 if self.asked == 2 else 1000.0


def test_an_interrupted_client_leaves_no_program_behind(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    os.mkfifo(alive)
    reader = os.open(alive, os.O_RDONLY | os.O_NONBLOCK)

    def interrupt(_line: str) -> None:
        raise KeyboardInterrupt

    how = UvRun(
        program(tmp_path, "exec 3> alive; echo x; sleep 600"),
        {"PATH": os.environ["PATH"]},
        str(tmp_path),
        50.0,
        interrupt,
    )
    try:
        with pytest.raises(KeyboardInterrupt):
            run_uv(how, [])
        os.set_blocking(reader, True)
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)


def test_a_program_that_cannot_be_started(tmp_path: Path) -> None:
    with pytest.raises(VmrunError, match="No such file"):
        run_uv(UvRun(str(tmp_path / "uv"), {}, str(tmp_path), 1.0, lambda _line: None), [])


# --- environment ---


def test_only_the_way_to_the_packages_is_passed_on() -> None:
    given = {
        "PATH": "/bin",
        "HOME": "/home/me",
        "UV_DEFAULT_INDEX": "https://a.example/simple",
        "UV_INDEX_CORP_PASSWORD": "secret",
        "UV_EXTRA_INDEX_URL": "https://b.example/simple",
        "HTTPS_PROXY": "http://proxy:3128",
        "no_proxy": "localhost",
        "SSL_CERT_FILE": "/ca.pem",
        "UV_PYTHON": "3.8",
        "UV_SYSTEM_PYTHON": "1",
        "UV_TARGET": "/x",
        "UV_CONSTRAINT": "/c.txt",
        "VIRTUAL_ENV": "/venv",
        "CONDA_PREFIX": "/conda",
        "PYTHONPATH": "/p",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    kept = uv_environment(given)
    assert sorted(set(given) - set(kept)) == [
        "AWS_SECRET_ACCESS_KEY",
        "CONDA_PREFIX",
        "PYTHONPATH",
        "UV_CONSTRAINT",
        "UV_PYTHON",
        "UV_SYSTEM_PYTHON",
        "UV_TARGET",
        "VIRTUAL_ENV",
    ]
    assert uv_environment(given, ca_file="/other.pem")["SSL_CERT_FILE"] == "/other.pem"


def test_what_goes_to_a_vm_is_an_address_and_no_secret() -> None:
    given = {
        "UV_DEFAULT_INDEX": "https://a.example/simple",
        "UV_INDEX": "corp=https://b.example/simple",
        "UV_EXTRA_INDEX_URL": "https://me:secret@b.example/simple",
        "UV_INDEX_URL": "file:///wheels",
        "UV_FIND_LINKS": "/wheels",
        "UV_INDEX_CORP_PASSWORD": "https://secret",
        "HTTPS_PROXY": "http://proxy:3128",
    }
    assert index_variables(given) == {name: given[name] for name in ("UV_DEFAULT_INDEX", "UV_INDEX")}


# --- errors, as uv words them ---

UNSATISFIABLE = "error: No solution found when resolving dependencies\n  cause: Because {}, we can conclude that …"
SAID = {
    "package": (
        UNSATISFIABLE.format("nosuch-1 was not found in the package registry and you require nosuch-1"),
        UsageError,
        "there is no package nosuch-1",
    ),
    "version": (UNSATISFIABLE.format("there is no version of six==99"), UsageError, "the requirements cannot be met"),
    "syntax": ("error: Couldn't parse requirement in `x` at position 0", UsageError, "cannot be met"),
    "build": ("error: Failed to build `x==1`\n  cause: The build backend failed", UsageError, "cannot be met"),
    "connection": (
        "error: Failed to fetch: http://127.0.0.1:9/simple/x/\n  cause: tcp connect error",
        VmrunError,
        "cannot be reached",
    ),
    "name": ("error: Failed to fetch: https://x.example/\n  cause: dns error", VmrunError, "cannot be reached"),
    "certificate": (
        "error: Failed to fetch: https://x.example/\n  cause: invalid peer certificate: UnknownIssuer",
        VmrunError,
        "certificate that is not trusted",
    ),
    "credentials": (
        "error: Failed to fetch: `https://x.example/`\n  cause: HTTP status client error (401 Unauthorized)",
        UsageError,
        "the package index refused",
    ),
    "other": ("thread 'main' panicked", VmrunError, "uv ended with exit code 2"),
}


@pytest.mark.parametrize(("text", "kind", "said"), SAID.values(), ids=SAID.keys())
def test_errors_are_explained(text: str, kind: type[VmrunError], said: str) -> None:
    error = explain(UvResult(2, tuple(text.splitlines())), "choosing")
    assert type(error) is kind
    assert error.message.startswith("choosing: ")
    assert said in error.message
    assert text.splitlines()[-1] in error.message
    assert error.hint


def test_a_run_that_took_too_long_is_explained() -> None:
    assert "took too long" in explain(UvResult(None, ("Downloading",)), "installing").message


def test_a_missing_python_is_seen() -> None:
    text = "error: No interpreter found for Python 3.14 in managed installations or search path"
    assert missing_python(UvResult(2, (text,))) == "Python 3.14"
    assert missing_python(UvResult(2, ("error: other",))) == ""
