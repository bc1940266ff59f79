"""Beginning and end of an engine: whoever dies, and however, nothing of it is left running."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.engine.bench import APP, PATIENCE, Bench, block, is_alive, nap, wait_until
from tests.engine.conftest import MakeBench
from vmrun.agent.engine import Engine, EngineSpec, Load, RunnerDied
from vmrun.agent.runner import launch
from vmrun.agent.runner.processes import marked
from vmrun.agent.sweep import end_predecessors
from vmrun.core.blocks import Status
from vmrun.core.clock import SystemClock
from vmrun.core.errors import UsageError


def hold(place: Path, number: int) -> None:
    """A task that says which processes it has, and stays: itself, its runner, a child, and a child that hides."""
    child = os.fork()
    if child == 0:
        nap(600)
    hidden = os.fork()
    if hidden == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        (place / f"hidden{number}").write_text(str(os.getpid()))
        nap(600)
    os.waitpid(hidden, 0)
    (place / f"pids{number}").write_text(f"{os.getppid()} {os.getpid()} {child}")
    nap(600)


def held(place: Path, count: int) -> tuple[int, list[int]]:
    """(runner, all other processes) of `count` tasks that hold."""

    def files() -> list[Path]:
        found = [*place.glob("pids*"), *place.glob("hidden*")]
        return found if len(found) == 2 * count and all(path.read_text() for path in found) else []

    texts = {path.name: path.read_text().split() for path in wait_until(files, "tasks to hold")}
    runner = int(texts["pids0"][0])
    pids = [int(pid) for name, words in texts.items() for pid in (words[1:] if name.startswith("pids") else words)]
    assert all(map(is_alive, [runner, *pids]))
    return runner, pids


def start_holding(bench: Bench, place: Path) -> tuple[int, list[int]]:
    bench.define(lambda number: hold(place, number))
    bench.feed(range(10))
    return held(place, 2)


def test_closing_ends_everything_and_removes_the_directory(bench: Bench, tmp_path: Path) -> None:
    runner, pids = start_holding(bench, tmp_path)
    began = time.monotonic()
    bench.close()
    assert not any(map(is_alive, [runner, *pids]))
    assert time.monotonic() - began < PATIENCE
    assert not bench.directory.exists()
    bench.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_runner_that_dies_leaves_no_process_and_is_reported_once(bench: Bench, tmp_path: Path, number: int) -> None:
    runner, pids = start_holding(bench, tmp_path)
    os.kill(runner, number)
    bench.until(lambda: bench.died)
    assert [type(event) for event in bench.events].count(RunnerDied) == 1
    assert "runner" in bench.died
    wait_until(lambda: not any(map(is_alive, [runner, *pids])), "killed processes to end")
    assert not bench.engine.idle()
    assert not bench.engine.wants()
    bench.feed([1], first=100)
    bench.engine.cancel()
    assert not any(isinstance(event, RunnerDied) for event in bench.engine.poll(0))


def test_results_from_before_the_runners_death_are_not_lost(bench: Bench) -> None:
    """Its agent takes none of them before it is dead."""

    def work(number: int) -> int:
        if number == 2000:
            nap(600)
        return number

    bench.define(work)
    bench.feed(range(2001))
    wait_until(lambda: bench.on_the_way() == 2000, "the others' outcomes to be sent")
    runner = bench.engine._process.pid
    os.kill(runner, signal.SIGKILL)
    wait_until(lambda: not is_alive(runner), "the runner to end")
    assert bench.outcomes == {}
    bench.until(lambda: bench.died)
    assert bench.outcomes == {number: number for number in range(2000)}
    assert "signal 9" in bench.died


AGENT = """
import os, sys
from pathlib import Path
from tests.engine.bench import Bench
from tests.engine.test_life import hold
place = Path(sys.argv[1])
bench = Bench(place)
bench.define(lambda number: hold(place, number))
bench.feed(range(2))
while True:
    bench.engine.poll(1)
"""


def test_an_agent_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    """Nobody is left to clean up: the runner sees its socket close."""
    with subprocess.Popen([sys.executable, "-c", AGENT, str(tmp_path)], cwd=APP) as agent:
        try:
            runner, pids = held(tmp_path, 2)
        finally:
            agent.kill()
    wait_until(lambda: not any(map(is_alive, [runner, *pids])), "the runner to notice")


@pytest.mark.parametrize("state", ["stopped runner", "dead runner"])
def test_an_agent_ends_what_its_predecessor_left_before_it_does_anything(tmp_path: Path, state: str) -> None:
    """The runner does not see its agent die, and everything goes on as if nothing had happened; until the next one."""
    work = tmp_path / "work"
    place = work / "somejob"
    place.mkdir(parents=True)
    (tmp_path / "other").mkdir()
    bystander = subprocess.Popen(["sleep", "600"])
    with subprocess.Popen([sys.executable, "-c", AGENT, str(place)], cwd=APP) as agent:
        try:
            runner, pids = held(place, 2)
            os.kill(runner, signal.SIGSTOP)
        finally:
            agent.kill()
    if state == "dead runner":
        os.kill(runner, signal.SIGKILL)
        wait_until(lambda: not is_alive(runner))
    else:
        assert all(map(is_alive, [runner, *pids]))
    end_predecessors(str(work), SystemClock())
    assert not any(map(is_alive, [runner, *pids]))
    assert is_alive(bystander.pid)
    bystander.kill()
    bystander.wait()
    # Marks that are no marks, and directories that are none, are nobody's processes.
    (place / "engine" / launch.MARK_FILE).write_bytes(b"\xff")
    (work / "file").touch()
    end_predecessors(str(work), SystemClock())
    end_predecessors(str(tmp_path / "nowhere"), SystemClock())


def test_workers_that_cannot_start_are_reported_with_the_reason(make_bench: MakeBench, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "cloudpickle.py").write_text("raise ImportError('this cloudpickle is broken')\n")
    bench = make_bench(env={"PYTHONPATH": str(tmp_path / "broken")})
    bench.define(abs)
    bench.feed([1])
    bench.until(lambda: bench.died)
    assert "workers do not start" in bench.died
    assert "this cloudpickle is broken" in bench.died


def test_an_agent_survives_what_user_code_makes_the_runner_say(make_bench: MakeBench, tmp_path: Path) -> None:
    """The runner belongs to the user of the job; here it is made to send nonsense by a module in its place."""
    for at, nonsense in enumerate(NONSENSE):
        app = tmp_path / f"app{at}"
        (app / "vmrun" / "agent" / "runner").mkdir(parents=True)
        for package in ("vmrun", "vmrun/agent", "vmrun/agent/runner"):
            (app / package / "__init__.py").touch()
        program = (
            f"import socket\ndef main(arguments):\n    s = socket.socket(fileno=int(arguments[0]))\n    {nonsense}\n"
        )
        (app / "vmrun" / "agent" / "runner" / "loop.py").write_text(program)
        bench = make_bench(app_path=str(app))
        bench.until(lambda bench=bench: bench.died)
        assert "cannot be read" in bench.died, nonsense


NONSENSE = (
    "s.sendall(b'x' * 100)",
    "s.sendall(b'VMF' + bytes([33]) + (2).to_bytes(4, 'little') + (1 << 40).to_bytes(8, 'little') + b'{}')",
    "s.sendall(b'VMF' + bytes([33]) + (2).to_bytes(4, 'little') + (4).to_bytes(8, 'little') + b'{}junk')",
    "s.sendall(b'VMF' + bytes([34]) + (2).to_bytes(4, 'little') + (0).to_bytes(8, 'little') + b'{}')",
    (
        'h = b\'{"path": "/etc/shadow", "task": 1, "freed": 0}\';'
        " s.sendall(b'VMF' + bytes([34]) + len(h).to_bytes(4, 'little') + (0).to_bytes(8, 'little') + h)"
    ),
    "s.sendall(b'VMF' + bytes([48]) + (2).to_bytes(4, 'little') + (3).to_bytes(8, 'little') + b'{}abc')",
)


def test_an_interpreter_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    spec = EngineSpec(str(tmp_path / "no-python"), APP, str(tmp_path / "engine"), 2, "job")
    with pytest.raises(UsageError, match="no-python") as caught:
        Engine(spec, SystemClock())
    assert caught.value.hint
    assert not (tmp_path / "engine").exists()


def test_an_interpreter_that_is_none_is_reported(make_bench: MakeBench) -> None:
    bench = make_bench(python="/bin/false")
    bench.until(lambda: bench.died)
    assert "exit code 1" in bench.died


def test_an_engine_has_at_least_one_worker(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="0 workers"):
        Engine(EngineSpec(sys.executable, APP, str(tmp_path / "engine"), 0, "job"), SystemClock())


def test_a_user_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    spec = EngineSpec(sys.executable, APP, str(tmp_path / "engine"), 2, "job", user="no-such-user-here")
    with pytest.raises(UsageError, match="no-such-user-here"):
        Engine(spec, SystemClock())


def test_a_function_must_be_defined_before_it_is_fed(bench: Bench) -> None:
    with pytest.raises(UsageError):
        bench.feed([1], "unheard-of")


def test_another_thread_can_wake_a_poll_that_waits(bench: Bench) -> None:
    bench.run(abs, [1])
    bench.until(lambda: bench.events and isinstance(bench.events[-1], Load) and bench.events[-1].done == 1)
    waiting = threading.Event()

    def wake() -> None:
        waiting.wait()
        bench.engine.wake()

    waker = threading.Thread(target=wake)
    waker.start()
    began = time.monotonic()
    waiting.set()
    assert bench.engine.poll(PATIENCE) == []
    assert time.monotonic() - began < PATIENCE / 2
    waker.join()
    bench.engine.wake()
    assert select.select([bench.engine.fileno()], [], [], 0)[0]
    assert bench.engine.poll(PATIENCE) == []
    assert not select.select([bench.engine.fileno()], [], [], 0)[0]


def test_polling_waits_no_longer_than_it_was_told(bench: Bench) -> None:
    began = time.monotonic()
    while bench.engine.poll(0.05):
        began = time.monotonic()
    assert 0.04 <= time.monotonic() - began < PATIENCE


def test_an_engine_says_when_it_has_enough(bench: Bench, tmp_path: Path) -> None:
    """With workers that are held up, feeding comes to an end, in memory that does not grow with the job."""

    def work(_: object) -> None:
        while not (tmp_path / "go").exists():
            nap(0.01)

    bench.define(lambda _: None, "first")
    bench.feed([0], "first")
    bench.finish()
    bench.define(work)
    fed = 1

    def feed() -> bool:
        """One round; whether it was not welcome."""
        nonlocal fed
        wanted = bench.engine.wants()
        if wanted:
            bench.engine.feed(block(fed, [bytes(1_000_000)] * 4), "f")
            fed += 4
        bench.engine.poll(0.01)
        assert fed < 1000
        return not wanted

    wait_until(lambda: feed() and fed > 50, "enough to be there")
    # And it stays so while the runner takes what it can hold.
    quiet = 0
    while quiet < 200:
        quiet = quiet + 1 if feed() else 0
    (tmp_path / "go").touch()
    bench.finish()
    assert len(bench.outcomes) == fed
    assert bench.engine.wants()


def test_workers_are_made_as_they_are_needed(make_bench: MakeBench, tmp_path: Path) -> None:
    bench = make_bench(workers=50)
    assert bench.run(lambda x: x, range(3)) == {0: 0, 1: 1, 2: 2}
    mark = f"VMRUN_ENGINE={bench.engine._mark}"
    assert 2 <= len(marked(mark)) <= 5


def test_what_runs_user_code_is_as_nice_as_the_agent(bench: Bench) -> None:
    niceness, runner = bench.run(lambda _: (os.getpriority(os.PRIO_PROCESS, 0), os.getppid()), [0])[0]
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert niceness == ours
    # The runner is let in before the tasks, where the agent may ask for that.
    allowed = subprocess.run([sys.executable, "-c", "import os; os.nice(-1)"], capture_output=True, check=False)
    favoured = ours if allowed.returncode else max(-20, ours - launch.FAVOUR)
    assert os.getpriority(os.PRIO_PROCESS, runner) == favoured


def test_an_idle_engine_uses_no_processor_time(bench: Bench) -> None:
    bench.run(lambda _: os.getppid(), [0])
    bench.until(lambda: bench.events and isinstance(bench.events[-1], Load))
    runner = bench.outcomes[0]

    def ticks() -> int:
        fields = Path(f"/proc/{runner}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        bench.engine.poll(0.2)
    assert ticks() - before <= 1


def test_two_engines_do_not_disturb_each_other(make_bench: MakeBench) -> None:
    first, second = make_bench(), make_bench()
    first.define(lambda x: x)
    second.define(lambda x: -x)
    first.feed(range(1000))
    second.feed(range(1000))
    second.finish()
    second.close()
    first.finish()
    assert first.outcomes == {n: n for n in range(1000)}
    assert second.outcomes == {n: -n for n in range(1000)}
    assert set(first.statuses.values()) == {Status.ok}
