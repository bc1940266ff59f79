"""What user code inherits, and what is left of an engine's directory."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.disks import deep_directory
from vmrun.agent.runner import launch, processes
from vmrun.agent.runner.processes import marked
from vmrun.agent.runner.verdicts import Death, verdict
from vmrun.core.blocks import Status, read_failure


def test_the_agents_secrets_do_not_reach_user_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    monkeypatch.setenv("LC_NUMERIC", "C")
    env = launch.environment({"MINE": "1", "PATH": "/mine"}, "", "m4rk")
    assert "canary" not in env.values()
    assert (env["MINE"], env["PATH"], env["LC_NUMERIC"], env[launch.MARK]) == ("1", "/mine", "C", "m4rk")


def test_text_is_utf8_where_nobody_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name == "LANG" or name.startswith("LC_"):
            monkeypatch.delenv(name)
    assert launch.environment({}, "", "m")["LANG"] == "C.UTF-8"
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert "LANG" not in launch.environment({}, "", "m")


def test_another_user_gets_its_own_home() -> None:
    env = launch.environment({}, "nobody", "m")
    assert (env["USER"], env["LOGNAME"]) == ("nobody", "nobody")
    assert env["HOME"] != os.environ["HOME"]


def test_the_directory_is_made_anew_and_private(tmp_path: Path) -> None:
    directory = tmp_path / "engine"
    directory.mkdir()
    (directory / "old").write_text("left by an engine that died")
    launch.make_directories(str(directory), "", "a-mark")
    assert sorted(path.name for path in directory.iterdir()) == [*(launch.MARK_FILE, launch.RUN, launch.TAKEN)]
    assert (directory / launch.MARK_FILE).read_text() == "a-mark"
    assert sorted(path.name for path in (directory / launch.RUN).iterdir()) == sorted(launch.PARTS)
    assert stat.S_IMODE((directory / launch.RUN).stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / launch.TAKEN).stat().st_mode) == 0o700


def test_only_what_the_runner_may_leave_is_taken_from_it(tmp_path: Path) -> None:
    """The runner is user code's own user; the agent may be root and carries what it takes to the store."""
    directory = tmp_path / "engine"
    launch.make_directories(str(directory), "", "a-mark")
    spool, files = directory / "run" / "spool", directory / "run" / "files"
    secret = tmp_path / "secret"
    secret.write_text("canary")
    (spool / "good").write_text("result")
    (spool / "link").symlink_to(secret)
    (spool / "folder").mkdir()
    os.link(secret, spool / "hard")
    (files / "link").symlink_to(tmp_path)
    (files / "3-0").mkdir()

    taken = Path(launch.take(str(directory), "spool", "/elsewhere/good", 1))
    assert taken.read_text() == "result"
    assert taken.parent == directory / "taken"
    assert Path(launch.take(str(directory), "files", str(files / "3-0"), 2)).is_dir()
    for part, name in (("spool", "link"), ("spool", "folder"), ("spool", "hard"), ("files", "link")):
        with pytest.raises(ValueError, match="something else"):
            launch.take(str(directory), part, name, 3 + len(part + name))
    with pytest.raises(OSError):
        launch.take(str(directory), "spool", str(secret), 4)
    assert secret.read_text() == "canary"


def test_nothing_is_taken_through_a_link_in_a_parts_place(tmp_path: Path) -> None:
    directory, elsewhere = tmp_path / "engine", tmp_path / "elsewhere"
    launch.make_directories(str(directory), "", "a-mark")
    elsewhere.mkdir()
    (elsewhere / "agent.key").write_text("canary")
    (directory / launch.RUN / "spool").rmdir()
    (directory / launch.RUN / "spool").symlink_to(elsewhere)
    with pytest.raises(OSError, match="spool"):
        launch.take(str(directory), "spool", "agent.key", 1)
    assert (elsewhere / "agent.key").read_text() == "canary"


def test_directories_that_nobody_may_enter_are_removed(tmp_path: Path) -> None:
    directory = tmp_path / "engine"
    (directory / "closed" / "inner").mkdir(parents=True)
    (directory / "closed" / "inner" / "file").write_text("x")
    (directory / "closed" / "inner").chmod(0)
    (directory / "closed").chmod(0o500)
    launch.remove(str(directory))
    assert not directory.exists()
    launch.remove(str(directory))


def test_directories_without_end_are_removed(tmp_path: Path) -> None:
    with deep_directory(tmp_path / "engine") as directory:
        launch.remove(str(directory))
        assert not directory.exists()


def test_root_changes_no_rights_where_a_job_may_put_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of the job may put one in the place of a directory that was just seen."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    before, walk = stat.S_IMODE(elsewhere.stat().st_mode), os.walk
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "walk", lambda top: ((str(elsewhere), [], []) for _ in walk(top)))
    with deep_directory(tmp_path / "engine") as directory:
        launch.remove(str(directory))
        assert not directory.exists()
    assert stat.S_IMODE(elsewhere.stat().st_mode) == before


def test_processes_are_found_by_their_mark() -> None:
    mark = f"VMRUN_ENGINE=test-{os.getpid()}"
    name, value = mark.split("=")
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env={**os.environ, name: value}
    ) as process:
        assert marked(mark) == [process.pid]
        assert marked(mark + "0") == []
        process.kill()


@pytest.mark.parametrize(
    ("death", "began", "kind", "words"),
    [
        (Death(3, 0, out_of_memory=False), True, Status.exited, "exit code 3"),
        (Death(0, 0, out_of_memory=False), True, Status.exited, "exit code 0"),
        (Death(-signal.SIGSEGV, 0, out_of_memory=True), True, Status.signalled, "SIGSEGV"),
        (Death(-signal.SIGKILL, 3 << 29, out_of_memory=True), True, Status.oom, "peaked at 1.61 GB"),
        (Death(-signal.SIGKILL, 0, out_of_memory=False), True, Status.signalled, "out of memory, or from outside"),
        (Death(120, 0, out_of_memory=False), False, Status.lost, "exit code 120"),
        (Death(-signal.SIGBUS, 0, out_of_memory=False), False, Status.lost, "SIGBUS"),
    ],
)
def test_a_death_is_told_as_what_it_was(death: Death, began: bool, kind: Status, words: str) -> None:
    status, payload = verdict(death, "last words", began=began)
    said = read_failure(payload)
    assert (status, said["kind"]) == (kind, kind.name)
    assert words in said["message"]


def test_a_kill_for_lack_of_memory_is_remembered_for_some_seconds() -> None:
    now, kills = [100.0], [7]
    watch = processes.MemoryWatch(lambda: now[0], lambda: kills[0])
    assert not watch.killed()
    kills[0] = 8
    seen = []
    for _ in range(30):
        now[0] += 0.1
        watch.look()
        seen.append(watch.killed())
    assert seen[:10] == [True] * 10
    assert seen[-1] is False


def test_one_kill_accounts_for_one_death() -> None:
    now, kills = [100.0], [7]
    watch = processes.MemoryWatch(lambda: now[0], lambda: kills[0])
    assert not watch.account()
    kills[0] = 9
    assert [watch.account() for _ in range(3)] == [True, True, False]
    now[0] += 1.1
    watch.look()
    kills[0] = 10
    assert [watch.account() for _ in range(2)] == [True, False]


def test_kills_for_lack_of_memory_are_counted_by_the_system() -> None:
    assert processes.out_of_memory_kills() >= 0
