"""The host that is this computer: commands, files, limits."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.machines import CLOCK, SOON, is_alive, wait
from vmrun.core.errors import Unreachable, UsageError
from vmrun.core.hosts import Completed, Host
from vmrun.transport import process
from vmrun.transport.process import ProcessHost
from vmrun.transport.ssh_channel import CommandTimeout, TooMuchOutput


@pytest.fixture
def host(tmp_path: Path) -> ProcessHost:
    (tmp_path / "machine").mkdir()
    return ProcessHost(tmp_path / "machine")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "machine"


def test_a_command_runs_in_the_directory_with_its_input(host: Host, home: Path) -> None:
    script = "import os, sys; print(os.getcwd()); sys.stderr.write(sys.stdin.read()); sys.exit(3)"

    done = host.run([sys.executable, "-c", script], input=b"given")

    assert done == Completed(3, f"{home}\n".encode(), b"given")


def test_arguments_reach_a_command_as_they_are(host: Host) -> None:
    arguments = ["", " ", "$(id)", "`id`", "a;b", "'\"", "*", "~", "-n", "\n", "é\udcff"]

    done = host.run(["/usr/bin/printf", "%s\\0", *arguments])

    assert done.stdout.split(b"\0")[:-1] == [os.fsencode(argument) for argument in arguments]


def test_much_goes_in_and_out_at_once(host: Host) -> None:
    data = os.urandom(1 << 20) * 5

    done = host.run(["cat"], input=data)

    assert done == Completed(0, data, b"")


def test_input_that_is_not_read_is_no_error(host: Host) -> None:
    assert host.run(["true"], input=b"x" * (1 << 20)) == Completed(0, b"", b"")


def test_a_command_ended_by_a_signal_has_the_code_minus_one(host: Host) -> None:
    assert host.run(["sh", "-c", "kill -9 $$"]).exit_code == -1


@pytest.mark.parametrize("program", ["no-such-program", "/no/such/program"])
def test_a_command_that_is_not_there_has_the_shells_code(host: Host, program: str) -> None:
    done = host.run([program])

    assert done.exit_code == 127
    assert program.encode() in done.stderr


def test_a_file_that_is_no_program_has_the_shells_code(host: Host, home: Path) -> None:
    (home / "data").write_text("data")

    assert host.run([str(home / "data")]).exit_code == 126


def test_a_command_that_takes_too_long_is_killed_with_its_children(host: Host, home: Path) -> None:
    before = CLOCK.monotonic()

    # Long enough for a shell to begin on a busy computer
    with pytest.raises(CommandTimeout) as caught:
        host.run(["sh", "-c", "sleep 300 & echo $! > child; wait"], timeout=5.0)

    assert isinstance(caught.value, Unreachable)
    assert 5.0 <= CLOCK.monotonic() - before < SOON
    wait(lambda: not is_alive(int((home / "child").read_text())))


def test_a_command_that_closed_its_output_is_still_waited_for(host: Host) -> None:
    with pytest.raises(CommandTimeout):
        host.run(["sh", "-c", "exec sleep 300 >&- 2>&- <&-"], timeout=0.3)


def test_a_command_that_prints_too_much_is_killed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "OUTPUT_LIMIT", 1 << 20)
    assert len(host.run(["head", "-c", str(1 << 20), "/dev/zero"]).stdout) == 1 << 20

    with pytest.raises(TooMuchOutput):
        host.run(["cat", "/dev/zero"])


def test_what_a_command_leaves_behind_is_not_waited_for(host: Host, home: Path) -> None:
    before = CLOCK.monotonic()

    done = host.run(["sh", "-c", "sleep 300 & echo $! > child; echo done"], timeout=60)

    assert done == Completed(0, b"done\n", b"")
    assert CLOCK.monotonic() - before < SOON
    os.kill(int((home / "child").read_text()), signal.SIGKILL)


def test_a_file_is_put_whole_with_its_mode_and_directories(host: Host, home: Path) -> None:
    host.put("a/b/file", [b"one", b"", b"two"], mode=0o755)
    host.put("a/b/file", [b"other"], mode=0o640)

    assert (home / "a/b/file").read_bytes() == b"other"
    assert (home / "a/b/file").stat().st_mode & 0o777 == 0o640
    assert (home / "a").stat().st_mode & 0o777 == 0o700
    assert os.listdir(home / "a/b") == ["file"]


def test_an_absolute_path_is_meant_as_it_is(host: Host, tmp_path: Path) -> None:
    host.put(str(tmp_path / "elsewhere" / "file"), [b"data"])

    assert (tmp_path / "elsewhere" / "file").read_bytes() == b"data"
    assert (tmp_path / "elsewhere" / "file").stat().st_mode & 0o777 == 0o600


def test_a_put_that_breaks_off_changes_nothing(host: Host, home: Path) -> None:
    host.put("file", [b"old"])

    def chunks() -> Iterator[bytes]:
        yield b"new"
        raise RuntimeError("the source broke off")

    with pytest.raises(RuntimeError, match="broke off"):
        host.put("file", chunks())

    assert (home / "file").read_bytes() == b"old"
    assert os.listdir(home) == ["file"]


@pytest.mark.parametrize("path", ["", ".", "..", "../file", "a/../../file", "/"])
def test_a_path_that_is_no_file_is_refused(host: Host, path: str) -> None:
    with pytest.raises(UsageError):
        host.put(path, [b"data"])


def test_a_place_that_cannot_be_written_is_said(host: Host, home: Path) -> None:
    (home / "file").touch()
    (home / "folder" / "in it").mkdir(parents=True)

    for path in ("file/below", "folder"):
        with pytest.raises(Unreachable) as caught:
            host.put(path, [b"data"])
        assert caught.value.hint
    assert sorted(os.listdir(home)) == ["file", "folder"]


def test_a_machine_that_goes_during_a_put_is_not_made_again(
    host: ProcessHost, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = host._check_there

    def check_then_vanish() -> None:
        check()
        home.rmdir()

    monkeypatch.setattr(host, "_check_there", check_then_vanish)
    for path in ("file", "a/file", str(home / "a" / "file")):
        home.mkdir(exist_ok=True)
        with pytest.raises(Unreachable):
            host.put(path, [b"data"])
        assert not home.exists()


def test_a_machine_that_is_gone_is_unreachable_and_stays_gone(host: Host, home: Path) -> None:
    home.rmdir()

    for call in (
        lambda: host.run(["true"]),
        lambda: host.put("file", [b"data"]),
        lambda: host.put("a/file", [b"data"]),
        lambda: host.put(str(home / "file"), [b"data"]),
    ):
        with pytest.raises(Unreachable, match="gone"):
            call()
    assert not home.exists()
    host.close()
    host.close()
