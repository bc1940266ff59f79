"""What a job shares is loaded once, seen by all workers without a copy each, and can fail only the job's own tasks."""

from __future__ import annotations

import ctypes
import hashlib
import os
import random
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vmrun
from tests.engine.bench import Bench, is_alive, nap, wait_until
from tests.engine.conftest import MakeBench
from vmrun.bundle.sharing import pack_shared
from vmrun.core.blocks import Status

MEGA = 1_000_000
Share = Callable[..., Bench]


@pytest.fixture
def share(make_bench: MakeBench, tmp_path: Path) -> Share:
    """A bench whose engine shares an object, as the agent sets it up."""

    def make(value: object, **options: Any) -> Bench:
        path = tmp_path / "parcel"
        path.write_bytes(b"".join(pack_shared(value, tmp_path)))
        path.chmod(0o444)
        env = {"VMRUN_SHARED_OBJECT": str(path), **options.pop("env", {})}
        return make_bench(shared=str(path), env=env, **options)

    return make


class Counted:
    """Notes in a file each time that it is loaded, and does as it is told then."""

    def __init__(self, note: Path, value: object, then: Callable[[], Any] = lambda: None) -> None:
        self.state = (str(note), value, then)

    def __reduce__(self) -> Any:
        return _load, self.state


def _load(note: str, value: object, then: Callable[[], Any]) -> object:
    with open(note, "a") as file:
        file.write(f"{os.getpid()}\n")
    then()
    return value


def loads(note: Path) -> list[int]:
    """Processes that loaded a Counted."""
    return [int(line) for line in note.read_text().split()] if note.exists() else []


def together(folder: Path, count: int) -> None:
    """Return once `count` processes have called this."""
    (folder / str(os.getpid())).touch()
    wait_until(lambda: len(os.listdir(folder)) >= count)


def proportional(pids: set[int]) -> int:
    """Bytes of memory of these processes, shared pages divided among those who share them."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


# --- one copy ---


def test_an_array_is_there_once_however_many_workers_read_it(share: Share, tmp_path: Path) -> None:
    size = 400 * MEGA
    array = np.arange(size // 8, dtype=np.int64)
    meet = tmp_path / "meet"
    meet.mkdir()
    bench = share({"array": array, "name": "n"}, workers=4)

    def total(_: int) -> tuple[int, int, str, bool]:
        # Without this module, whose own imports would weigh more than what is to be measured.
        import os
        import time

        import vmrun

        mine = vmrun.shared()
        found = int(mine["array"].sum())
        open(f"{meet}/{os.getpid()}", "w").close()
        while len(os.listdir(meet)) < 4:
            time.sleep(0.01)  # noqa: TID251
        return os.getpid(), found, mine["name"], mine["array"].flags.writeable

    outcomes = bench.run(total, range(4))
    assert {found[1:] for found in outcomes.values()} == {(int(array.sum()), "n", True)}
    pids = {found[0] for found in outcomes.values()}
    assert len(pids) == 4
    assert size <= proportional(pids) + proportional(parents_of(bench, pids)) <= 1.3 * size


def parents_of(bench: Bench, workers: set[int]) -> set[int]:
    """The runner and what else it has started: the template maps the array too."""
    below = {bench.engine._process.pid}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == bench.engine._process.pid:
                below.add(int(entry.name))
    return below - workers


def test_plain_objects_are_loaded_once_and_forked(share: Share, tmp_path: Path) -> None:
    note, size, meet = tmp_path / "note", 100 * MEGA, tmp_path / "meet"
    meet.mkdir()
    bench = share(Counted(note, {"bytes": bytes(size), "nested": [{"a": (1, 2)}] * 1000}), workers=3)

    def look(_: int) -> tuple[int, bool]:
        mine = vmrun.shared()
        good = mine["bytes"].count(0) == size and mine["nested"][999] == {"a": (1, 2)} and vmrun.shared() is mine
        together(meet, 3)
        return os.getpid(), good

    outcomes = bench.run(look, range(3))
    pids = {pid for pid, _ in outcomes.values()}
    assert len(pids) == 3
    assert all(good for _, good in outcomes.values())
    assert len(loads(note)) == 1
    assert not pids & set(loads(note))
    assert proportional(pids) < 1.3 * size


def test_what_a_task_writes_stays_in_its_worker(share: Share, tmp_path: Path) -> None:
    meet = tmp_path / "meet"
    meet.mkdir()
    bench = share(np.zeros(MEGA), workers=2)
    before = hashlib.sha256((tmp_path / "parcel").read_bytes()).hexdigest()

    def scribble(number: int) -> tuple[int, float]:
        array = vmrun.shared()
        if number < 2:
            together(meet, 2)
            array[number] = 7.0
        return os.getpid(), float(array.sum())

    first = bench.run(scribble, range(2))
    assert [total for _, total in first.values()] == [7.0, 7.0]
    wrote = {pid for pid, _ in first.values()}
    assert len(wrote) == 2
    bench.feed(range(2, 20), first=2)
    bench.finish()
    # A later task of the same worker finds what an earlier one wrote; no other does.
    assert {outcome for task, outcome in bench.outcomes.items() if task >= 2} <= {(pid, 7.0) for pid in wrote}
    assert hashlib.sha256((tmp_path / "parcel").read_bytes()).hexdigest() == before


def test_an_array_that_was_read_only_still_is(share: Share) -> None:
    fixed = np.arange(MEGA)
    fixed.flags.writeable = False
    bench = share([fixed, np.asfortranarray(np.arange(MEGA).reshape(1000, 1000)), np.arange(MEGA)[::2]])
    outcomes = bench.run(
        lambda _: [(a.flags.writeable, a.flags.f_contiguous, int(a.sum())) for a in vmrun.shared()], [0]
    )
    whole = MEGA * (MEGA - 1) // 2
    assert outcomes[0] == [(False, True, whole), (True, True, whole), (True, True, MEGA // 2 * (MEGA // 2 - 1))]


def test_workers_do_not_draw_the_same_random_numbers(share: Share, tmp_path: Path) -> None:
    meet = tmp_path / "meet"
    meet.mkdir()
    bench = share(np.random.default_rng(1).random(MEGA), workers=3)

    def draw(_: int) -> tuple[float, float]:
        vmrun.shared()
        together(meet, 3)
        return float(np.random.random()), random.random()

    drawn = bench.run(draw, range(3)).values()
    assert len({pair[0] for pair in drawn}) == len({pair[1] for pair in drawn}) == 3


def test_a_replaced_worker_has_it_too(share: Share, tmp_path: Path) -> None:
    note = tmp_path / "note"
    bench = share(Counted(note, "shared"), workers=2)

    def task(number: int) -> str:
        if number in (3, 8):
            os._exit(1)
        if number == 5:
            os.kill(os.getpid(), signal.SIGSEGV)
        return vmrun.shared()

    outcomes = bench.run(task, range(20))
    assert {outcomes[at] for at in range(20) if at not in (3, 5, 8)} == {"shared"}
    assert [outcomes[at]["kind"] for at in (3, 5, 8)] == ["exited", "signalled", "exited"]
    assert len(loads(note)) == 1


def test_when_the_process_that_holds_it_is_killed_it_is_loaded_again(share: Share, tmp_path: Path) -> None:
    note = tmp_path / "note"
    bench = share(Counted(note, "shared"), workers=1)
    assert bench.run(lambda _: vmrun.shared(), [0]) == {0: "shared"}
    (template,) = loads(note)
    os.kill(template, signal.SIGKILL)
    wait_until(lambda: not is_alive(template))
    bench.define(lambda number: os._exit(1) if number == 1 else vmrun.shared(), "g")
    bench.feed(range(1, 6), "g", first=1)
    bench.finish()
    assert [bench.outcomes[at] for at in range(2, 6)] == ["shared"] * 4
    assert len(loads(note)) == 2


def test_what_tasks_leave_behind_is_ended_and_no_worker_with_it(share: Share, tmp_path: Path) -> None:
    # Every worker serves one task, so that some are always being born while others' orphans are ended.
    note = tmp_path / "note"
    bench = share(Counted(note, "shared"), workers=4, fresh=True)

    def leave(_: int) -> tuple[str, int]:
        child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        return vmrun.shared(), child.pid

    outcomes = bench.run(leave, range(60))
    assert {found[0] for found in outcomes.values()} == {"shared"}
    assert {facts["attempt"] for facts in bench.facts.values()} == {0}
    assert len(loads(note)) == 1
    wait_until(lambda: not any(is_alive(found[1]) for found in outcomes.values()))


def test_what_is_shared_does_not_count_against_a_tasks_memory(share: Share) -> None:
    shared = {"plain": bytes(range(250)) * 800_000, "array": np.ones(25 * MEGA)}
    bench = share(shared, task_memory=100 * MEGA)

    def look(number: int) -> int:
        mine = vmrun.shared()
        taken = bytearray(number)
        taken[::4096] = b"x" * len(taken[::4096])
        nap(600 if number > 100 * MEGA else 0.3)
        return mine["plain"].count(7) + int(mine["array"].sum())

    outcomes = bench.run(look, [MEGA, 300 * MEGA, MEGA])
    assert (outcomes[0], outcomes[2]) == (800_000 + 25 * MEGA, 800_000 + 25 * MEGA)
    assert outcomes[1]["kind"] == "oom"


# --- ways to fail ---


def fail_to_load(bench: Bench) -> list[dict[str, Any]]:
    """The failures of tasks whose shared object cannot be loaded, those that come later included."""
    bench.run(lambda _: vmrun.shared(), range(5))
    bench.feed(range(5), first=5)
    bench.finish()
    assert len(bench.outcomes) == 10
    return list(bench.outcomes.values())


def _raise() -> None:
    raise ValueError("no such thing")


@pytest.mark.parametrize(
    ("then", "kind", "words"),
    [
        (_raise, "raised", ("ValueError", "no such thing")),
        (lambda: 1 // 0, "raised", ("ZeroDivisionError",)),
        (lambda: bytearray(1 << 60), "raised", ("MemoryError",)),
        (lambda: __import__("no_such_module_here"), "raised", ("ModuleNotFoundError", "no_such_module_here")),
        (lambda: os._exit(9), "exited", ("exit code 9",)),
        (lambda: ctypes.string_at(0), "signalled", ("SIGSEGV", "string_at")),
        (os.abort, "signalled", ("SIGABRT",)),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "signalled", ("SIGKILL",)),
    ],
    ids=["raises", "divides", "memory", "imports", "exits", "segfault", "aborts", "killed"],
)
def test_a_load_that_fails_fails_every_task_with_its_reason(
    share: Share, tmp_path: Path, then: Callable[[], Any], kind: str, words: tuple[str, ...]
) -> None:
    note = tmp_path / "note"
    failures = fail_to_load(share(Counted(note, 0, then)))
    assert {said["kind"] for said in failures} == {kind}
    for said in failures:
        assert "shared data" in said["message"]
        text = said["type"] + said["message"] + said["traceback"]
        assert all(word in text for word in words), text
    # Only what may have been killed because of others is tried again.
    assert len(loads(note)) == (3 if "SIGKILL" in words else 1)


def test_another_pythons_object_is_not_opened(share: Share, tmp_path: Path) -> None:
    note = tmp_path / "note"
    path = tmp_path / "foreign"
    own = b"".join(pack_shared(Counted(note, 1), tmp_path))
    path.write_bytes(own.replace(f'"python":"{vmrun.core.blocks.PYTHON}"'.encode(), b'"python":"3.99"', 1))
    (tmp_path / "shared.pickle").unlink()
    bench = share(1, env={"VMRUN_SHARED_OBJECT": str(path)})
    os.replace(path, tmp_path / "parcel")
    failures = fail_to_load(bench)
    assert {said["kind"] for said in failures} == {"unpicklable"}
    assert all("3.99" in said["message"] for said in failures)
    assert loads(note) == []


def _leave_a_thread() -> None:
    threading.Thread(target=threading.Event().wait, daemon=True).start()


def test_beside_threads_nothing_is_forked_and_each_worker_loads_for_itself(share: Share, tmp_path: Path) -> None:
    note, meet, size = tmp_path / "note", tmp_path / "meet", 200 * MEGA
    meet.mkdir()
    bench = share(Counted(note, np.ones(size // 8), _leave_a_thread), workers=2)

    def total(_: int) -> tuple[int, float]:
        found = float(vmrun.shared().sum())
        together(meet, 2)
        return os.getpid(), found

    outcomes = bench.run(total, range(2))
    assert {found for _, found in outcomes.values()} == {size / 8}
    pids = {pid for pid, _ in outcomes.values()}
    assert set(loads(note)[1:]) == pids
    assert len(loads(note)) == 3
    # The array is still in memory once.
    assert proportional(pids) < 1.5 * size


def test_a_cancelled_job_ends_while_its_object_is_being_loaded(share: Share, tmp_path: Path) -> None:
    note = tmp_path / "note"
    bench = share(Counted(note, 0, lambda: nap(1000)))
    bench.define(lambda _: 0)
    bench.feed(range(5))
    bench.until(lambda: loads(note))
    bench.engine.cancel()
    bench.finish()
    assert set(bench.statuses.values()) == {Status.cancelled}
    (template,) = loads(note)
    bench.close()
    assert not is_alive(template)


def test_a_job_without_shared_data_says_so(bench: Bench) -> None:
    said = bench.run(lambda _: vmrun.shared(), [0])[0]
    assert (said["kind"], said["type"]) == ("raised", "vmrun.core.errors.UsageError")
    assert "shares no data" in said["message"]


def test_objects_of_the_jobs_own_file_are_of_its_classes(share: Share, tmp_path: Path) -> None:
    source = tmp_path / "code" / "job.py"
    source.parent.mkdir()
    source.write_text(
        "import vmrun\n"
        "class Own:\n"
        "    word = 'own'\n"
        "def make():\n"
        "    return Own()\n"
        "def task(number):\n"
        "    mine = vmrun.shared()\n"
        "    return isinstance(mine, Own) and mine.word\n"
    )
    bench = share(_ByName(), source=str(source), code_path=str(source.parent))
    bench.source(source, "task")
    bench.feed(range(4), "task")
    bench.finish()
    assert list(bench.outcomes.values()) == ["own"] * 4


def test_what_stands_in_the_jobs_file_is_each_workers_own(share: Share, tmp_path: Path) -> None:
    """Its random numbers are not the same in all, and the file that it opens is open."""
    source = tmp_path / "code" / "job.py"
    source.parent.mkdir()
    (tmp_path / "meet").mkdir()
    source.write_text(
        "import os, time, vmrun\n"
        "NUMBER = int.from_bytes(os.urandom(8))\n"
        "FILE = open(__file__)\n"
        "def task(meet):\n"
        "    open(f'{meet}/{os.getpid()}', 'w').close()\n"
        "    while len(os.listdir(meet)) < 2:\n"
        "        time.sleep(0.01)\n"
        "    FILE.seek(0)\n"
        "    return os.getpid(), NUMBER, vmrun.shared(), FILE.read(6)\n"
    )
    bench = share(5, source=str(source), code_path=str(source.parent))
    bench.source(source, "task")
    bench.feed([str(tmp_path / "meet")] * 2, "task")
    bench.finish()
    assert {(shared, text) for _, _, shared, text in bench.outcomes.values()} == {(5, "import")}
    assert len({(pid, number) for pid, number, _, _ in bench.outcomes.values()}) == 2
    assert len({number for _, number, _, _ in bench.outcomes.values()}) == 2


def test_files_that_the_object_holds_open_stay_open(share: Share, tmp_path: Path) -> None:
    (tmp_path / "table").write_text("here")
    bench = share(_Opens(str(tmp_path / "table")))

    def read(_: int) -> str:
        import vmrun

        return os.pread(vmrun.shared().fileno(), 10, 0).decode()

    assert bench.run(read, range(4)) == dict.fromkeys(range(4), "here")


class _Opens:
    """Unpickled as an open file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (self.path,)


class _ByName:
    """Pickled as what the job's file makes, by name, as at submit."""

    def __reduce__(self) -> Any:
        return _own, ()


def _own() -> Any:
    return __import__("__vmrun_job__").make()
