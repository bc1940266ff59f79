"""Environments on a machine, with the real uv and wheels of our own: made once, whoever races, whoever dies."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.environment.wheels import make_wheel, offline
from vmrun.core.blocks import PYTHON
from vmrun.core.clock import SystemClock
from vmrun.core.errors import UsageError, VmrunError
from vmrun.environment.install import InstallOptions, ensure_environment, environment_id, find_interpreter
from vmrun.environment.uv import find_uv

DEADLINE = 120.0


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    return tmp_path / "wheels"


@pytest.fixture
def options(tmp_path: Path, wheels: Path) -> InstallOptions:
    return InstallOptions(variables={**offline(wheels), "UV_CACHE_DIR": str(tmp_path / "uv")}, compile_bytecode=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "environments"


def version_in(interpreter: Path, module: str) -> str:
    argv = [str(interpreter), "-c", f"import {module}; print({module}.VERSION)"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True).stdout.strip()


def recording_uv(directory: Path, before: str = "") -> tuple[str, Path]:
    """The real uv behind a script that notes each call, and runs `before` first."""
    calls = directory / "calls"
    script = directory / "recording-uv"
    script.write_text(
        f'#!/bin/sh\necho "$4" >> {shlex.quote(str(calls))}\n{before}\nexec {shlex.quote(find_uv())} "$@"\n'
    )
    script.chmod(0o755)
    return str(script), calls


def made(calls: Path) -> list[str]:
    return calls.read_text().split()


def test_an_environment_holds_what_its_lock_says(root: Path, wheels: Path, options: InstallOptions) -> None:
    lock = make_wheel(wheels, "tiny_a", "1.5", requires=("tiny_b",)) + make_wheel(wheels, "tiny_b", "2.5")
    lines: list[str] = []
    interpreter = ensure_environment(root, lock, PYTHON, find_uv(), options, lines.append)
    assert interpreter == root / environment_id(lock, PYTHON) / "bin" / "python"
    assert (version_in(interpreter, "tiny_a"), version_in(interpreter, "tiny_b")) == ("1.5", "2.5")
    assert any("tiny-a==1.5" in line for line in lines), lines


def test_it_is_made_once(root: Path, wheels: Path, options: InstallOptions, tmp_path: Path) -> None:
    lock = make_wheel(wheels, "tiny")
    uv, calls = recording_uv(tmp_path)
    first = ensure_environment(str(root), lock, PYTHON, uv, options)
    assert made(calls) == ["venv", "pip"]
    assert ensure_environment(root, lock, PYTHON, uv, options) == first
    assert made(calls) == ["venv", "pip"]


def test_other_contents_are_other_environments(root: Path, wheels: Path, options: InstallOptions) -> None:
    one, two = make_wheel(wheels, "tiny", "1.0"), make_wheel(wheels, "tiny", "2.0")
    found = [ensure_environment(root, lock, PYTHON, find_uv(), options) for lock in (one, two)]
    assert [version_in(interpreter, "tiny") for interpreter in found] == ["1.0", "2.0"]


def test_an_empty_lock_is_a_bare_python(root: Path, options: InstallOptions, tmp_path: Path) -> None:
    uv, calls = recording_uv(tmp_path)
    interpreter = ensure_environment(root, "# nothing\n", sys.executable, uv, options)
    assert made(calls) == ["venv"]
    done = subprocess.run([str(interpreter), "-c", "import typer"], capture_output=True, timeout=120, check=False)
    assert done.returncode == 1


def test_byte_code_is_written_at_once_where_asked_for(root: Path, wheels: Path, options: InstallOptions) -> None:
    options = InstallOptions(variables=options.variables)
    interpreter = ensure_environment(root, make_wheel(wheels, "tiny"), PYTHON, find_uv(), options)
    assert list(interpreter.parents[1].rglob("tiny.*.pyc"))


def test_nothing_but_the_locked_bytes_is_installed(root: Path, wheels: Path, options: InstallOptions) -> None:
    lock = make_wheel(wheels, "tiny")
    (wheels / "tiny-1.0-py3-none-any.whl").unlink()
    make_wheel(wheels, "tiny", more="import evil\n")
    with pytest.raises(VmrunError, match=r"(?s)installing the job's environment.*[Hh]ash mismatch"):
        ensure_environment(root, lock, PYTHON, find_uv(), options)


def test_what_has_no_hash_is_not_installed(root: Path, wheels: Path, options: InstallOptions) -> None:
    make_wheel(wheels, "tiny")
    with pytest.raises(VmrunError, match=r"(?s)hash.*tiny==1\.0"):
        ensure_environment(root, "tiny==1.0\n", PYTHON, find_uv(), options)


def test_a_failed_environment_is_made_anew(root: Path, wheels: Path, options: InstallOptions) -> None:
    lock = make_wheel(wheels, "tiny")
    wheel = wheels / "tiny-1.0-py3-none-any.whl"
    wheel.rename(wheels / "hidden")
    with pytest.raises(UsageError, match="tiny"):
        ensure_environment(root, lock, PYTHON, find_uv(), options)
    (wheels / "hidden").rename(wheel)
    assert version_in(ensure_environment(root, lock, PYTHON, find_uv(), options), "tiny") == "1.0"


def test_an_environment_whose_python_is_gone_is_made_anew(root: Path, wheels: Path, options: InstallOptions) -> None:
    lock = make_wheel(wheels, "tiny")
    interpreter = ensure_environment(root, lock, PYTHON, find_uv(), options)
    interpreter.unlink()
    interpreter.symlink_to("/nowhere/python")
    assert version_in(ensure_environment(root, lock, PYTHON, find_uv(), options), "tiny") == "1.0"


def test_an_environment_without_its_marker_is_made_anew(root: Path, wheels: Path, options: InstallOptions) -> None:
    """What a crash at any point before the end leaves behind."""
    lock = make_wheel(wheels, "tiny")
    interpreter = ensure_environment(root, lock, PYTHON, find_uv(), options)
    directory = interpreter.parents[1]
    (directory / ".complete").unlink()
    module = next(directory.rglob("tiny.py"))
    module.unlink()  # it may be a link into uv's cache
    module.write_text("half")
    assert version_in(ensure_environment(root, lock, PYTHON, find_uv(), options), "tiny") == "1.0"


def test_a_python_that_is_not_there_is_refused_with_those_that_are(root: Path, options: InstallOptions) -> None:
    with pytest.raises(UsageError, match=r"Python 3\.99 is not on this machine, which has .*3\.\d+") as caught:
        ensure_environment(root, "", "3.99", find_uv(), options)
    assert "--python" in caught.value.hint


def test_a_service_without_a_home_still_has_a_cache(
    root: Path, wheels: Path, options: InstallOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "UV_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    options = InstallOptions(variables=offline(wheels), compile_bytecode=False)
    ensure_environment(root, make_wheel(wheels, "tiny"), PYTHON, find_uv(), options)
    assert (root / ".uv-cache").is_dir()


def test_options_travel_as_data() -> None:
    options = InstallOptions({"UV_DEFAULT_INDEX": "https://a.example"}, "/ca.pem", True, False, 5.0)
    again = InstallOptions.from_data(options.to_data())
    assert again.to_data() == options.to_data()
    assert InstallOptions.from_data({"ca_file": "", "new": 1}).to_data() == InstallOptions().to_data()


# --- races and deaths ---

BUILDER = """
import sys
from vmrun.environment.install import InstallOptions, ensure_environment
root, lock, python, uv, wheels, cache = sys.argv[1:]
variables = {"UV_FIND_LINKS": wheels, "UV_NO_INDEX": "1", "UV_OFFLINE": "1", "UV_CACHE_DIR": cache}
options = InstallOptions(variables=variables, compile_bytecode=False)
print(ensure_environment(root, lock, python, uv, options, lambda line: print(line, flush=True)))
"""


@pytest.fixture
def builders() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=DEADLINE)


def test_racing_builders_make_it_once(
    root: Path, wheels: Path, tmp_path: Path, builders: list[subprocess.Popen[str]]
) -> None:
    lock = make_wheel(wheels, "tiny")
    uv, calls = recording_uv(tmp_path)
    argv = [sys.executable, "-c", BUILDER, str(root), lock, PYTHON, uv, str(wheels), str(tmp_path / "uv")]
    for _ in range(4):
        builders.append(subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    said = [process.communicate(timeout=DEADLINE)[0] for process in builders]
    assert [process.returncode for process in builders] == [0] * 4, said
    assert made(calls) == ["venv", "pip"]
    found = {text.splitlines()[-1] for text in said}
    assert len(found) == 1
    assert version_in(Path(found.pop()), "tiny") == "1.0"


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """A named pipe: a line in it lets one go on who waits there, or comes to wait. After the test nobody waits."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    # Open on both sides all the time, so that the line is kept for one who has not opened it yet.
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    yield path
    os.write(descriptor, b"go\n")
    os.close(descriptor)


def test_a_builder_that_dies_lets_nobody_in_while_its_uv_still_writes(
    root: Path,
    wheels: Path,
    options: InstallOptions,
    builders: list[subprocess.Popen[str]],
    gate: Path,
    tmp_path: Path,
) -> None:
    """Killed, a builder cannot stop its uv. The next one waits for that to end, then starts from nothing."""
    lock = make_wheel(wheels, "tiny")
    blocking = tmp_path / "blocking"
    blocking.touch()
    uv, calls = recording_uv(tmp_path, f"echo started\nif test -e {blocking}; then read x < {gate}; fi")

    # Given a builder whose uv is under way, killed.
    argv = [sys.executable, "-c", BUILDER, str(root), lock, PYTHON, uv, str(wheels), str(tmp_path / "uv")]
    first = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    builders.append(first)
    assert first.stdout is not None
    assert first.stdout.readline() == "started\n"
    first.send_signal(signal.SIGKILL)
    first.wait(DEADLINE)

    # When another comes, it waits while that uv lives.
    waiting, found = threading.Event(), []

    def progress(line: str) -> None:
        if line.startswith("waiting for another process"):
            waiting.set()

    def build() -> None:
        found.append(ensure_environment(root, lock, PYTHON, uv, options, progress))

    second = threading.Thread(target=build, daemon=True)
    second.start()
    assert waiting.wait(DEADLINE)
    assert made(calls) == ["venv"]

    # Then, once it is gone, the environment is made from the start.
    blocking.unlink()
    gate.write_text("go\n")
    second.join(DEADLINE)
    assert made(calls) == ["venv", "venv", "pip"]
    assert version_in(found[0], "tiny") == "1.0"


def test_waiting_for_another_builder_has_an_end(root: Path, options: InstallOptions, tmp_path: Path) -> None:
    class Impatient(SystemClock):
        def __init__(self) -> None:
            self.slept = 0.0

        def monotonic(self) -> float:
            return self.slept

        def sleep(self, seconds: float) -> None:
            self.slept += seconds * 1000

    holder = textwrap.dedent("""
        import fcntl, os, sys
        fcntl.flock(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX)
        print("held", flush=True)
        sys.stdin.read()
    """)
    root.mkdir()
    path = root / f"{environment_id('', PYTHON)}.lock"
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "held\n"
        patient = InstallOptions(variables=options.variables, timeout=1000.0, clock=Impatient())
        with pytest.raises(VmrunError, match="for too long"):
            ensure_environment(root, "", PYTHON, find_uv(), patient)
        process.stdin.close()


# --- without an environment ---


def fake_python(directory: Path, name: str, body: str) -> None:
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_an_interpreter_is_found_and_tried_out(tmp_path: Path) -> None:
    shims = tmp_path / "shims"
    fake_python(shims, "python3.12", "exit 127")
    fake_python(shims, "python3", "printf 3.12")
    assert find_interpreter("3.12", str(shims)) == shims / "python3"


def test_an_interpreter_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    shims = tmp_path / "shims"
    fake_python(shims, "python3.9", "printf 3.9")
    fake_python(shims, "python3.11", "printf 3.11")
    fake_python(shims, "python3.12", "exit 127")
    with pytest.raises(UsageError, match=r"Python 3\.12 is not on this machine, which has 3\.9, 3\.11"):
        find_interpreter("3.12", str(shims))
    with pytest.raises(UsageError, match="which has none"):
        find_interpreter("3.12", str(tmp_path))


def test_this_machine_has_the_python_that_runs_this() -> None:
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    assert find_interpreter(PYTHON, path).exists()
