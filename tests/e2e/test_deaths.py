"""Whoever dies, the job ends, every task is committed once, and nothing stays behind."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.engine.bench import is_alive
from tests.support.journals import committed_tasks
from tests.support.shell import Shell, kill, processes, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SLEEPY = """
    import os, time
    import vmrun

    @vmrun.job(over=range({tasks}))
    def task(x):
        with open({trace!r}, "a") as file:
            file.write(f"{{os.getpid()}}\\n")
        time.sleep({seconds})
        # The last ones wait until the test has done what it is to do meanwhile
        while x >= {held} and not os.path.exists({gate!r}):
            time.sleep(0.05)
        return x
"""


def sleepy(shell: Shell, tasks: int, seconds: float, *, held: int) -> tuple[Path, Path]:
    """A job whose tasks from `held` on wait for a file: where its processes are told, and that file."""
    trace, gate = shell.home / "trace", shell.home / "gate"
    trace.touch()
    text = SLEEPY.format(tasks=tasks, seconds=seconds, trace=str(trace), held=held, gate=str(gate))
    shell.write("sleepy.py", text)
    return trace, gate


def workers(trace: Path) -> list[int]:
    """Processes that ran tasks, the latest last."""
    return [int(line) for line in trace.read_text().split()]


def agents(shell: Shell) -> list[int]:
    """Processes of this shell's agent."""
    found = [number for number, line in processes("vmrun.agent run").items() if str(shell.home) in line]
    assert found
    return found


def test_the_client_is_killed_and_another_shell_gets_the_whole_result(shell: Shell, tmp_path: Path) -> None:
    # Given a client that is killed while its job runs
    trace, gate = sleepy(shell, 40, 0.05, held=20)
    client = shell.start("submit", "sleepy.py")
    until(lambda: workers(trace), 60, "a task runs")
    os.killpg(client.pid, signal.SIGKILL)
    client.communicate()
    gate.touch()
    (job,) = shell.ask("status")["jobs"]
    # When another shell, with nothing but a copy of the configuration directory, asks
    home = tmp_path / "empty"
    home.mkdir()
    shutil.copytree(shell.home / ".config" / "vmrun", tmp_path / "config")
    other = Shell(home, {"VMRUN_CONFIG_DIR": str(tmp_path / "config"), "VMRUN_CACHE_DIR": str(tmp_path / "cache")})
    assert other.wait(job["id"])["state"] == "done"
    # Then it has the whole result
    assert other.ask("result", job["id"])["results"] == list(range(40))
    until(lambda: not processes(str(shell.home)), 30, "the machine ends by itself")


def test_a_worker_and_then_the_agent_are_killed_and_every_task_is_committed_once(shell: Shell) -> None:
    trace, gate = sleepy(shell, 160, 0.1, held=100)
    job = shell.submit("sleepy.py")
    until(lambda: len(workers(trace)) > 20, 60, "tasks run")
    kill(workers(trace)[-1])
    until(lambda: len(workers(trace)) > 60, 60, "tasks go on")
    for number in agents(shell):
        kill(number)
    gate.touch()
    assert shell.wait(job)["state"] == "done"
    document = shell.ask("result", job)
    assert document["results"] == list(range(160))
    assert committed_tasks(shell, job) == list(range(160))
    until(lambda: not processes(str(shell.home)), 30, "the machine ends by itself")


#: Enough for three deaths of an agent, and how many more may end at each of six steps on the way.
LOCKING_TASKS, OPENED = 80, 8
LOCKING = """
    import os, time
    import vmrun

    def alive(pid):
        try:
            with open(f"/proc/{{pid}}/stat") as file:
                return file.read().rpartition(")")[2].split()[0] not in "ZX"
        except OSError:
            return False

    @vmrun.job(over=range({tasks}), workers=2)
    def task(x):
        lock = os.path.join({place!r}, f"lock{{x}}")
        if os.path.exists(lock) and alive(open(lock).read()):
            raise RuntimeError(f"task {{x}} runs twice at once")
        with open(lock + ".new", "w") as file:
            file.write(str(os.getpid()))
        os.rename(lock + ".new", lock)
        daemon = os.fork()
        if daemon == 0:
            os.setsid()
            time.sleep(600)
        with open({trace!r}, "a") as file:
            file.write(f"{{x}} {{os.getpid()}} {{daemon}} {{os.getppid()}}\\n")
        time.sleep(0.3)
        while x >= int(open({opened!r}).read()):
            time.sleep(0.05)
        os.unlink(lock)
        return x
"""


def test_an_agent_that_returns_runs_no_task_twice_at_once_and_only_what_is_not_committed(shell: Shell) -> None:
    # Given a job whose agent is killed three times, while its tasks run and have children that hide
    trace, place = shell.home / "trace", shell.home / "locks"
    trace.touch()
    place.mkdir()
    opened = shell.home / "opened"
    text = LOCKING.format(tasks=LOCKING_TASKS, place=str(place), trace=str(trace), opened=str(opened))
    shell.write("locking.py", text)

    def runs() -> list[list[int]]:
        return [[int(word) for word in line.split()] for line in trace.read_text().splitlines()]

    def let_go_on(tasks: int = 0) -> None:
        """Have so many tasks end, by default a few more than have begun; the others wait, however late this is."""
        new = opened.with_suffix(".new")
        new.write_text(str(tasks or max((task for task, *_ in runs()), default=-1) + 1 + OPENED))
        new.rename(opened)

    let_go_on()
    job = shell.submit("locking.py")
    seen = 0
    for _ in range(3):
        let_go_on()
        committed = set(committed_tasks(shell, job))
        until(lambda seen=seen: len(runs()) >= seen + 4, 60, "tasks run")
        # What runs is of one agent, and so below one runner
        known = {runner for *_, runner in runs()}
        for number in agents(shell):
            kill(number)
        let_go_on()
        # When the next one runs tasks, then nothing of its predecessor's is alive
        until(lambda known=known: len([run for run in runs() if run[-1] not in known]) > 2, 60, "tasks run again")
        for _, worker, daemon, runner in runs():
            assert runner not in known or not (is_alive(worker) or is_alive(daemon))
        # And nothing that was committed before runs again
        assert not committed & {task for task, *_, runner in runs() if runner not in known}
        seen = len(runs())
    let_go_on(LOCKING_TASKS)
    # And the job has every result once
    assert shell.wait(job)["state"] == "done"
    assert shell.ask("result", job)["results"] == list(range(LOCKING_TASKS))
    assert committed_tasks(shell, job) == list(range(LOCKING_TASKS))
    until(lambda: not processes(str(shell.home)), 30, "the machine ends by itself")


def test_ctrl_c_detaches_and_says_how_to_come_back(shell: Shell) -> None:
    trace, gate = sleepy(shell, 20, 0.1, held=0)
    client = shell.start("submit", "sleepy.py")
    until(lambda: workers(trace), 60, "a task runs")
    client.send_signal(signal.SIGINT)
    _, said = client.communicate(timeout=240)
    assert client.returncode == 130
    gate.touch()
    (job,) = shell.ask("status")["jobs"]
    assert f"vmrun wait {job['id']}" in said
    assert f"vmrun cancel {job['id']}" in said
    assert shell.wait(job["id"])["state"] == "done"


def test_a_machine_whose_agent_never_starts_ends_within_its_boot_grace(shell: Shell) -> None:
    # Given a client that dies right after it created the machine
    shell.write("vmrun.toml", '[local]\nboot_grace = "2s"\nheartbeat = "0.2s"\nlease = "2s"\ndeadman_poll = "0.2s"\n')
    sleepy(shell, 1, 0.1, held=1)
    client = shell.start("submit", "sleepy.py")
    machines = shell.home / ".local" / "state" / "vmrun" / "local" / "machines"
    until(lambda: machines.is_dir() and any(machines.iterdir()), 60, "a machine")
    os.killpg(client.pid, signal.SIGKILL)
    client.communicate()
    begun = time.monotonic()
    # Then it is gone
    until(lambda: not processes(str(machines)), 30, "the machine ends by itself")
    # A minute is the grace that nobody has changed.
    assert time.monotonic() - begun < 50


def test_a_task_that_ends_what_its_job_runs_in_is_lost_alone(shell: Shell) -> None:
    # Given a job one of whose tasks kills the process above its own, which all others are below, too
    shell.write(
        "above.py",
        """
        import os, time
        import vmrun

        @vmrun.job(over=range(24), workers=2)
        def task(x):
            if x == 5:
                os.kill(os.getppid(), 9)
                time.sleep(60)
            time.sleep(0.05)
            return x
        """,
    )
    # Then it is found and fails, and nobody else does
    job = shell.submit("above.py")
    assert shell.wait(job, timeout=180)["state"] == "failed"
    document = shell.ask("result", job, exit_code=6)
    assert document["results"] == [None if x == 5 else x for x in range(24)]
    ((number, kind),) = [(error["task"], error["kind"]) for error in document["errors"]]
    assert (number, kind) == (5, "lost")
