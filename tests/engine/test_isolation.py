"""What a task does to its process stays with that task."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import vmrun
from tests.engine.bench import Bench, is_alive, nap, wait_until
from tests.engine.conftest import MakeBench
from vmrun.core.blocks import Status


def spoil_and_look(bench: Bench, spoil: Any, look: Any) -> None:
    """On one worker: look, spoil, look again in a later task; both looks must show the same."""

    def work(number: int) -> Any:
        if number == 1:
            spoil()
            return None
        return look()

    outcomes = bench.run(work, range(3))
    assert bench.statuses == dict.fromkeys(range(3), Status.ok)
    assert outcomes[0] == outcomes[2]


@pytest.fixture
def alone(make_bench: MakeBench) -> Bench:
    """One worker, so that all tasks share a process."""
    return make_bench(workers=1, env={"KEPT": "before", "REMOVED": "before"})


@pytest.mark.catalogue(50)
def test_working_directory(alone: Bench) -> None:
    spoil_and_look(alone, lambda: os.chdir("/"), os.getcwd)


@pytest.mark.catalogue(50)
def test_umask(alone: Bench) -> None:
    def look() -> int:
        mask = os.umask(0o77)
        os.umask(mask)
        return mask

    spoil_and_look(alone, lambda: os.umask(0), look)


@pytest.mark.catalogue(50)
def test_environment(alone: Bench) -> None:
    def spoil() -> None:
        os.environ["KEPT"] = "after"
        os.environ["ADDED"] = "after"
        os.environ["VMRUN_OUTPUT"] = "/nowhere"
        os.environ["VMRUN_TASK"] = "-1"
        del os.environ["REMOVED"]

    def look() -> tuple[dict[str, str], str]:
        mine = {name: value for name, value in os.environ.items() if name != "VMRUN_TASK"}
        script = "echo $KEPT $REMOVED $ADDED $VMRUN_OUTPUT"
        return mine, subprocess.check_output(["sh", "-c", script], text=True)

    spoil_and_look(alone, spoil, look)
    assert alone.outcomes[0][0]["KEPT"] == "before"


@pytest.mark.catalogue(50)
def test_a_replaced_environment(alone: Bench) -> None:
    def spoil() -> None:
        os.environ = {}  # type: ignore[assignment]  # noqa: B003

    spoil_and_look(alone, spoil, lambda: os.environ["KEPT"])


def test_every_task_knows_its_number_and_so_do_its_children(alone: Bench) -> None:
    def work(number: int) -> tuple[str, ...]:
        if number == 2:
            os.environ["VMRUN_TASK"] = "mine"
        child = subprocess.check_output(["printenv", "VMRUN_TASK"], text=True) if number > 2 else ""
        return os.environ["VMRUN_TASK"], child.strip(), os.environ["VMRUN_JOB"], os.environ["VMRUN_WORKER"]

    outcomes = alone.run(work, range(5))
    assert outcomes[0] == ("0", "", "testjob", "0")
    assert outcomes[3] == ("3", "3", "testjob", "0")
    assert outcomes[4] == ("4", "4", "testjob", "0")


@pytest.mark.catalogue(49)
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda: [os.close(fd) for fd in (0, 1, 2)], id="closed"),
        pytest.param(lambda: [os.dup2(os.open("/dev/null", os.O_RDWR), fd) for fd in (1, 2)], id="to null"),
        pytest.param(lambda: [os.dup2(os.open("/etc/passwd", os.O_RDONLY), fd) for fd in (0, 1, 2)], id="to a file"),
        pytest.param(lambda: [os.dup2(socket.socketpair()[0].detach(), fd) for fd in (0, 1, 2)], id="to sockets"),
        pytest.param(lambda: [stream.close() for stream in (sys.stdin, sys.stdout, sys.stderr)], id="streams closed"),
        pytest.param(lambda: setattr(sys, "stdout", None), id="no stdout"),
        pytest.param(lambda: os.closerange(3, 200), id="low descriptors closed"),
        pytest.param(
            lambda: [os.write(fd, b"junk") for fd in range(3, 200) if Path(f"/dev/fd/{fd}").exists()], id="scribbled"
        ),
    ],
)
def test_descriptors_and_streams(alone: Bench, spoil: Any) -> None:
    def work(number: int) -> bytes:
        if number == 1:
            spoil()
            return b""
        print("out", number)
        print("err", number, file=sys.stderr)
        return os.read(0, 10) + subprocess.check_output(["cat"])

    outcomes = alone.run(work, range(6))
    assert outcomes == dict.fromkeys(range(6), b"")
    for number in (0, 2, 3, 4, 5):
        assert alone.printed(number) == f"out {number}\n"
        assert alone.printed(number, "stderr") == f"err {number}\n"


def test_a_task_that_closes_everything_costs_its_worker_and_no_outcome(bench: Bench) -> None:
    def work(number: int) -> int:
        if number % 10 == 3:
            os.closerange(0, 100_000)
        return number

    assert bench.run(work, range(40)) == {number: number for number in range(40)}


@pytest.mark.catalogue(49)
def test_a_task_that_writes_into_every_descriptor_fails_alone(bench: Bench) -> None:
    """The protocol's own descriptor included: foreign bytes there are noticed, and nothing of them is obeyed."""

    def work(number: int) -> int:
        if number == 5:
            for name in os.listdir("/proc/self/fd"):
                try:
                    os.write(int(name), b"VMF" + b"\x21" * 200)
                except OSError:
                    continue
            nap(600)
        return number

    outcomes = bench.run(work, range(30))
    assert outcomes.pop(5)["kind"] == "lost"
    assert outcomes == {number: number for number in range(30) if number != 5}


@pytest.mark.parametrize("pause", [0.0, 0.05], ids=["at once", "a little later"])
def test_a_task_that_writes_into_every_descriptor_and_goes_on_costs_no_other_task_its_outcome(
    bench: Bench, pause: float
) -> None:
    """Outcomes that follow the foreign bytes are not believed, and run again, alone.

    Such a task ends as lost, unless its outcome was seen in the shared memory before the bytes were.
    """

    def work(number: int) -> int:
        if number in (5, 20_005):
            for name in os.listdir("/proc/self/fd"):
                try:
                    os.set_blocking(int(name), False)
                    os.write(int(name), b"junk" * 64)
                except OSError:
                    continue
            nap(pause)
        return number

    outcomes = bench.run(work, range(40_000))
    for number in (5, 20_005):
        assert outcomes.pop(number) == number or bench.statuses[number] is Status.lost
    assert outcomes == {number: number for number in range(40_000) if number not in (5, 20_005)}


def start_daemon(note: Path) -> None:
    """A process in a session of its own, whose parents are gone; deaf to polite signals. `note` holds its number."""
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (note.parent / "new").write_text(str(os.getpid()))
        (note.parent / "new").rename(note)
        os.execvp("sleep", ["sleep", "600"])
    os.waitpid(child, 0)
    while not note.exists():
        nap(0.001)


def start_hidden(note: Path) -> None:
    """Without fork's hooks, in a group of its own, with an environment of its own."""
    child = subprocess.Popen(["sleep", "600"], env={}, start_new_session=True)
    note.write_text(str(child.pid))
    child.returncode = 0  # no warning that it runs on


def start_process(note: Path) -> None:
    import multiprocessing

    child = multiprocessing.get_context("fork").Process(target=nap, args=(600,))
    child.start()
    note.write_text(str(child.pid))


@pytest.mark.catalogue(42)
@pytest.mark.parametrize("start", [start_daemon, start_hidden, start_process])
@pytest.mark.parametrize("end", ["returns", "raises", "leaves", "crashes", "hangs"])
def test_what_a_task_starts_ends_with_it(make_bench: MakeBench, tmp_path: Path, start: Any, end: str) -> None:
    bench = make_bench(task_timeout=4.0 if end == "hangs" else None, kill_grace=0.2)
    note = tmp_path / "child"

    def work(number: int) -> int:
        if number == 2:
            start(note)
            if end == "raises":
                raise ValueError
            if end == "leaves":
                os._exit(1)
            if end == "crashes":
                os.abort()
            if end == "hangs":
                nap(600)
        return number

    outcomes = bench.run(work, range(10))
    kinds = {"raises": "raised", "leaves": "exited", "crashes": "signalled", "hangs": "timeout"}
    assert bench.statuses[2].name == kinds.get(end, "ok")
    assert all(outcomes[number] == number for number in range(10) if number != 2)
    wait_until(lambda: not is_alive(int(note.read_text())), "the child to end")


@pytest.mark.catalogue(42)
def test_no_process_of_a_task_sees_the_next_one(alone: Bench, tmp_path: Path) -> None:
    """On one worker: the next task begins when they are gone, however many there were."""

    def work(number: int) -> list[bool]:
        if number % 2 == 0:
            for child in range(20):
                start_daemon(tmp_path / f"child{number}-{child}")
        return [is_alive(int(path.read_text())) for path in tmp_path.glob(f"child{number - 1}-*")]

    outcomes = alone.run(work, range(4))
    assert outcomes == {0: [], 1: [False] * 20, 2: [], 3: [False] * 20}


@pytest.mark.catalogue(42)
def test_cancelling_ends_daemons_too(make_bench: MakeBench, tmp_path: Path) -> None:
    bench = make_bench(kill_grace=0.2)
    note = tmp_path / "child"

    def work(_: int) -> None:
        start_daemon(note)
        nap(600)

    bench.define(work)
    bench.feed([0])
    bench.until(note.exists)
    bench.engine.cancel()
    bench.finish()
    assert bench.outcomes[0]["kind"] == "cancelled"
    wait_until(lambda: not is_alive(int(note.read_text())), "the daemon to end")


def test_what_a_module_starts_when_it_is_loaded_serves_all_tasks(alone: Bench, tmp_path: Path) -> None:
    path = tmp_path / "helped.py"
    path.write_text(
        "import os, subprocess, time\n"
        "helper = subprocess.Popen(['sleep', '600'])\n"
        "def work(number):\n"
        "    own = subprocess.Popen(['sleep', '600'])\n"
        "    own.returncode = 0\n"
        "    return helper.poll() is None, helper.pid, own.pid\n"
    )
    alone.source(path, "work")
    alone.feed(range(5), "work")
    alone.finish()
    assert [alone.outcomes[number][0] for number in range(5)] == [True] * 5
    assert len({alone.outcomes[number][1] for number in range(5)}) == 1
    wait_until(lambda: not any(is_alive(alone.outcomes[number][2]) for number in range(5)), "what tasks started to end")
    alone.close()
    assert not is_alive(alone.outcomes[0][1])


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_pool_that_a_task_leaves_open_costs_its_worker_and_no_later_task(
    alone: Bench, tmp_path: Path, method: str
) -> None:
    """Killing a pool's processes makes its next user wait for ever: it gets a process without that pool."""
    (tmp_path / "pooled.py").write_text(
        "import multiprocessing, os\n"
        "pools = []\n"
        "def work(number):\n"
        f"    context = multiprocessing.get_context({method!r})\n"
        "    pools or pools.append(context.Pool(1))\n"
        "    return pools[0].apply_async(os.getpid).get(90)\n"
    )
    alone.source(tmp_path / "pooled.py", "work")
    alone.feed(range(4), "work")
    alone.finish()
    assert set(alone.statuses.values()) == {Status.ok}, alone.outcomes
    assert [alone.facts[number]["attempt"] for number in range(4)] == [0] * 4
    wait_until(lambda: not any(is_alive(alone.outcomes[number]) for number in range(4)), "the pools to end")


def test_processes_that_python_keeps_for_itself_stay(alone: Bench) -> None:
    """They serve as long as the worker lives, and end with it."""

    def work(_: int) -> tuple[int, int, int]:
        from multiprocessing import forkserver, resource_tracker, shared_memory

        memory = shared_memory.SharedMemory(create=True, size=10)
        memory.close()
        memory.unlink()
        forkserver.ensure_running()
        return os.getpid(), resource_tracker._resource_tracker._pid, forkserver._forkserver._forkserver_pid

    outcomes = alone.run(work, range(4))
    assert len(set(outcomes.values())) == 1, outcomes
    assert "died unexpectedly" not in alone.printed(3, "stderr")
    alone.close()
    assert not any(map(is_alive, outcomes[0]))


@pytest.mark.parametrize(
    "leave", [lambda: None, lambda: sys.exit(3), lambda: 1 // 0], ids=["returns", "exits", "raises"]
)
def test_a_forked_child_that_comes_back_does_not_answer_for_its_parent(bench: Bench, leave: Any) -> None:
    def work(number: int) -> int:
        if number == 2:
            child = os.fork()
            if child == 0:
                leave()
                return -1
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return number

    outcomes = bench.run(work, range(10))
    assert outcomes.pop(2) in (0, 1, 3)
    assert outcomes == {number: number for number in range(10) if number != 2}


@pytest.mark.catalogue(50, 56)
def test_globals_last_as_long_as_a_worker_and_a_fresh_one_has_none(make_bench: MakeBench, tmp_path: Path) -> None:
    path = tmp_path / "globals.py"
    path.write_text("import os\nseen = []\ndef work(number):\n    seen.append(number)\n    return seen, os.getpid()\n")
    kept = make_bench(workers=1)
    kept.source(path, "work")
    kept.feed(range(50), "work")
    kept.finish()
    assert kept.outcomes[49][0] == list(range(50))
    fresh = make_bench(workers=2, fresh=True)
    fresh.source(path, "work")
    fresh.feed(range(50), "work")
    fresh.finish()
    assert [fresh.outcomes[number][0] for number in range(50)] == [[number] for number in range(50)]
    assert len({fresh.outcomes[number][1] for number in range(50)}) == 50
    assert {fresh.facts[number]["attempt"] for number in range(50)} == {0}


@pytest.mark.catalogue(51)
def test_workers_are_forked_from_a_process_that_has_no_threads(make_bench: MakeBench, tmp_path: Path) -> None:
    """A lock that another thread holds at the fork would stay locked in the child for ever, as BLAS's do."""
    bench = make_bench(retries=1)

    def work(number: int) -> tuple[int, int]:
        lock = threading.Lock()
        for _ in range(20):
            threading.Thread(target=lambda: nap(600), daemon=True).start()
        with lock:
            child = os.fork()
            if child == 0:
                os._exit(0 if lock.locked() else 1)
        assert os.waitpid(child, 0)[1] == 0
        if number % 4 == 0 and not (tmp_path / str(number)).exists():
            (tmp_path / str(number)).touch()
            os._exit(1)
        runner = os.getppid()
        return runner, len(os.listdir(f"/proc/{runner}/task"))

    outcomes = bench.run(work, range(12))
    assert {threads for _, threads in outcomes.values()} == {1}
    assert os.getpid() not in {runner for runner, _ in outcomes.values()}


def test_processes_and_threads_may_be_used_in_a_task(bench: Bench) -> None:
    def work(number: int) -> list[int]:
        import multiprocessing
        from concurrent.futures import ThreadPoolExecutor

        with multiprocessing.get_context("fork").Pool(2) as pool, ThreadPoolExecutor(2) as threads:
            return pool.map(abs, [-number, number]) + list(threads.map(abs, [-1]))

    assert bench.run(work, range(3)) == {number: [number, number, 1] for number in range(3)}


def test_the_process_is_otherwise_like_any_python(alone: Bench) -> None:
    def inherited() -> list[str]:
        return subprocess.check_output(["ls", "/proc/self/fd"], text=True).split()

    def look(_: int) -> tuple[Any, ...]:
        return (
            signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
            signal.getsignal(signal.SIGINT) is signal.default_int_handler,
            threading.active_count(),
            sys.stdin.read(),
            os.getpid() == os.getsid(0) == os.getpgid(0),
            # The fourth is the listing itself.
            inherited(),
        )

    assert alone.run(look, [0])[0] == (True, True, 1, "", True, ["0", "1", "2", "3"])


@pytest.mark.parametrize(("given", "seen"), [({}, None), ({"OMP_NUM_THREADS": "7"}, "7")])
def test_libraries_get_their_share_of_the_cores(make_bench: MakeBench, given: dict[str, str], seen: str | None) -> None:
    cores = len(os.sched_getaffinity(0))
    bench = make_bench(workers=cores, env=given)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    assert bench.run(lambda _: [os.environ[name] for name in names], [0])[0] == [seen or "1", "1"]
    whole = make_bench(workers=1)
    assert whole.run(lambda _: os.environ["OPENBLAS_NUM_THREADS"], [0])[0] == str(cores)


def test_threads_that_were_asked_for_hold_for_programs_too(make_bench: MakeBench) -> None:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    for asked, seen in ((False, ""), (True, "3")):
        bench = make_bench(workers=1, threads=3, threads_asked=asked)
        assert bench.run(lambda _: [os.environ[name] for name in names], [0])[0] == ["3"] * 3
        bench.command("sh", "-c", 'echo "$OMP_NUM_THREADS"')
        bench.feed([0], "command", first=1)
        bench.finish()
        assert bench.printed(1) == f"{seen}\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run code as somebody else")
def test_another_user_runs_the_code() -> None:
    nobody = pwd.getpwnam("nobody")
    python = "/usr/bin/python3"
    version = subprocess.check_output([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], text=True)
    if version.strip() != f"{sys.version_info.major}.{sys.version_info.minor}":
        pytest.skip("the system's Python is another version")
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        app = Path(place) / "app"
        app.mkdir()
        copy_application(app)
        bench = Bench(Path(place), app_path=str(app), python=python, user="nobody")

        def work(_: int) -> tuple[Any, ...]:
            Path(os.environ["VMRUN_OUTPUT"], "file").touch()
            return os.getuid(), os.getgid(), os.getgroups(), os.environ["HOME"]

        assert bench.run(work, [0])[0] == (nobody.pw_uid, nobody.pw_gid, [], nobody.pw_dir)
        assert (bench.files[0, 0] / "file").stat().st_uid == nobody.pw_uid
        bench.close()


def copy_application(app: Path) -> None:
    """What the agent brings to a machine."""
    for module in (vmrun, cloudpickle):
        source = Path(module.__file__ or "").parent
        shutil.copytree(source, app / source.name, ignore=shutil.ignore_patterns("__pycache__"))
