"""The guardian: it starts the agent, keeps it going, and ends the machine whatever happens."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.local.machines import CLOCK, SOON, Machine, Machines, debris, is_alive, parent, python, wait, wait_dead
from vmrun.provisioners.local import config, layout, processes, service

#: Notes its process number, then lives on.
LIVES = "echo $$ >> pids; exec sleep 300"
#: Leaves a process behind that has another session, another parent and no environment, and notes its number.
DAEMON = "(env -i setsid /bin/sh -c 'echo $$ > daemon; exec sleep 300' </dev/null >/dev/null 2>&1 &)"


def pids(machine: Machine) -> list[int]:
    path = machine.directory / "pids"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


# --- the agent's life ---


def test_the_agent_runs_in_the_directory_in_a_session_of_its_own(machines: Machines) -> None:
    machine = machines.machine()
    script = (
        "import json, os, signal, sys\n"
        "facts = {'pid': os.getpid(), 'directory': os.getcwd(), 'session': os.getsid(0), 'group': os.getpgrp(),\n"
        "  'environment': dict(os.environ), 'input': sys.stdin.read(),\n"
        "  'blocked': len(signal.pthread_sigmask(signal.SIG_BLOCK, [])),\n"
        "  'files': sorted({os.path.realpath(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd')})}\n"
        "print('to the log', flush=True); print('and this', file=sys.stderr, flush=True)\n"
        "open('facts.tmp', 'w').write(json.dumps(facts)); os.rename('facts.tmp', 'facts')\n"
        "signal.pause()\n"
    )
    machine.start_agent(*python(script))
    wait((machine.directory / "facts").exists)
    facts = json.loads((machine.directory / "facts").read_text())

    assert facts["directory"] == str(machine.directory)
    assert facts["session"] == facts["group"] == facts["pid"]
    assert facts["input"] == ""
    assert facts["blocked"] == 0
    assert facts["environment"][layout.MARK_NAME] == machine.spec.name
    assert facts["environment"][layout.MARK_DIRECTORY] == str(machine.directory)
    assert facts["environment"]["HOME"] == os.environ["HOME"]
    assert facts["environment"].get("PYTHONPATH") == os.environ.get("PYTHONPATH")
    assert not [path for path in facts["files"] if layout.GUARDIAN in path or layout.GUARDIAN_LOCK in path]
    log = machine.directory / layout.AGENT_LOG
    wait(lambda: log.exists() and log.read_text() == "to the log\nand this\n")


def test_a_killed_agent_is_started_again(machines: Machines) -> None:
    machine = machines.machine()
    machine.start_shell(LIVES)

    for runs in (1, 2, 3):
        wait(lambda runs=runs: len(pids(machine)) == runs)  # type: ignore[misc]
        os.kill(pids(machine)[-1], signal.SIGKILL)
    wait(lambda: len(pids(machine)) == 4)

    assert machine.guardian() is not None
    assert [is_alive(pid) for pid in pids(machine)] == [False, False, False, True]


def test_what_a_killed_agent_started_is_gone_before_it_starts_again(machines: Machines) -> None:
    """Two generations of workers never run at once."""
    machine = machines.machine()
    survivor = "[ -e daemon ] && kill -0 $(cat daemon) && echo both > both; "
    machine.start_shell(survivor + DAEMON + "; while [ ! -e daemon ]; do sleep 0.01; done; " + LIVES)
    wait(lambda: len(pids(machine)) == 1)

    os.kill(pids(machine)[0], signal.SIGKILL)

    wait(lambda: len(pids(machine)) == 2)
    assert not (machine.directory / "both").exists()


def test_an_agent_that_is_done_ends_the_machine(machines: Machines) -> None:
    machine = machines.machine()
    machine.start_shell(DAEMON + "; while [ ! -e daemon ]; do sleep 0.01; done; cp daemon ../../daemon; exit 0")

    machine.wait_ended("drained")

    assert not is_alive(int((machines.state / "daemon").read_text()))


def test_an_agent_that_fails_all_the_time_ends_the_machine(machines: Machines) -> None:
    """The guardian's program itself, with a smaller limit."""
    spec = machines.spec()
    machines.provisioner._make(spec, config.parse(spec.user_data))
    machine = Machine(machines.state, spec)
    machine.start_shell("echo run >> ../../runs; exit 3")
    program = (
        "import sys; from vmrun.provisioners.local import guardian, rules; "
        "rules.Restarts.LIMIT = 3; rules.Restarts.FIRST_DELAY = 0.01; sys.exit(guardian.main(sys.argv[1:]))"
    )
    subprocess.run([sys.executable, "-c", program, str(machine.directory)], check=True, timeout=SOON)

    machine.wait_ended("the agent failed 4 times, last with exit code 3")

    assert (machines.state / "runs").read_text().count("run") == 4


@pytest.mark.parametrize("text", ["", "{}", "[]", '["a", 1]', '"sleep 1"', "nonsense", '["a\\u0000b"]'])
def test_a_command_that_is_none_ends_the_machine(machines: Machines, text: str) -> None:
    machine = machines.machine()
    machine.put(layout.AGENT_ARGV, text)

    machine.wait_ended("agent.argv is not a list of strings")


def test_a_command_that_cannot_be_run_is_said_in_the_log(machines: Machines) -> None:
    machine = machines.machine()
    machine.start_agent("/no/such/program")
    log = machine.directory / layout.AGENT_LOG

    wait(lambda: log.exists() and log.read_text().count("No such file or directory: '/no/such/program'") >= 2)
    assert machine.guardian() is not None


def test_the_log_keeps_the_newest_output_and_stays_small(machines: Machines) -> None:
    machine = machines.machine()
    machine.start_shell("i=0; while [ $i -lt 40 ]; do head -c 100000 /dev/zero; i=$((i+1)); done; echo end; " + LIVES)
    log = machine.directory / layout.AGENT_LOG

    def newest() -> bytes:
        # For a moment, when it has moved and not begun anew, there is none.
        with suppress(FileNotFoundError):
            return log.read_bytes()
        return b""

    wait(lambda: newest().endswith(b"end\n"))

    sizes = [path.stat().st_size for path in machine.directory.glob(f"{layout.AGENT_LOG}*")]
    assert len(sizes) == 2
    assert max(sizes) <= service._LOG_LIMIT


# --- the end of a machine ---


def test_a_machine_whose_agent_never_comes_ends_after_its_boot_grace(machines: Machines) -> None:
    machine = machines.machine(boot_grace=0.3)

    machine.wait_ended("lease expired")


def test_a_lease_that_is_renewed_holds_beyond_the_boot_grace(machines: Machines, tmp_path: Path) -> None:
    machine = machines.jumping(tmp_path / "jump", by=300.0, boot_grace=120.0)
    machine.start_shell(LIVES)
    machine.renew(500)
    wait(lambda: len(pids(machine)) == 1)

    (tmp_path / "jump").touch()

    # It goes on looking after its agent: the second time it has looked at the lease in between.
    for runs in (2, 3):
        os.kill(pids(machine)[-1], signal.SIGKILL)
        wait(lambda runs=runs: len(pids(machine)) == runs)  # type: ignore[misc]
    assert machine.guardian() is not None


def test_a_lease_is_obeyed_and_the_agent_told_first(machines: Machines) -> None:
    machine = machines.machine(flush_grace=SOON)
    machine.start_shell(
        "trap 'echo flushed > ../../flushed; exit 0' TERM; echo $$ >> pids; while :; do sleep 0.05; done"
    )
    wait(lambda: len(pids(machine)) == 1)
    expires = CLOCK.now() + 0.5
    machine.renew(0.5)

    machine.wait_ended("lease expired")

    assert CLOCK.now() >= expires
    assert (machines.state / "flushed").read_text() == "flushed\n"


def test_an_agent_that_does_not_want_to_end_is_killed_after_its_grace(machines: Machines, tmp_path: Path) -> None:
    machine = machines.jumping(tmp_path / "jump", by=605.0, flush_grace=600.0, lifetime=5000.0)
    machine.start_shell(
        "trap 'echo told >> ../../told' TERM; " + DAEMON + "; echo $$ >> pids; while :; do sleep 0.05; done"
    )
    daemon = machine.number("daemon")
    agent = machine.number("pids")
    machine.renew(-1)
    wait((machines.state / "told").exists)
    assert is_alive(agent)

    (tmp_path / "jump").touch()

    machine.wait_ended("lease expired")
    assert not is_alive(agent)
    assert not is_alive(daemon)


def test_the_hard_deadline_cannot_be_moved(machines: Machines, tmp_path: Path) -> None:
    machine = machines.jumping(tmp_path / "jump", by=700.0, lifetime=600.0)
    machine.renew(1000)
    machine.put(layout.HARD_DEADLINE, str(CLOCK.now() + 1000))
    machine.start_shell(LIVES)
    wait(lambda: len(pids(machine)) == 1)
    assert machine.guardian() is not None

    (tmp_path / "jump").touch()

    machine.wait_ended("maximum lifetime reached")


def test_a_clock_that_stands_still_does_not_prolong_a_life(machines: Machines) -> None:
    """The guardian's program itself, with a wall clock that gets nowhere."""
    spec = machines.spec(limits={"lifetime": 0.5})
    machines.provisioner._make(spec, config.parse(spec.user_data))
    machine = Machine(machines.state, spec)
    program = (
        "import sys; from vmrun.core.clock import SystemClock; from vmrun.provisioners.local import guardian\n"
        "class Clock(SystemClock):\n"
        "    def now(self): return float(sys.argv[2])\n"
        "guardian.SystemClock = Clock\n"
        "sys.exit(guardian.main(sys.argv[1:2]))"
    )
    command = [sys.executable, "-c", program, str(machine.directory), str(CLOCK.now())]
    subprocess.run(command, check=True, timeout=SOON)

    machine.wait_ended("maximum lifetime reached")


def test_the_hard_deadline_can_be_brought_forward(machines: Machines) -> None:
    machine = machines.machine()
    machine.start_shell(LIVES)
    machine.put(layout.HARD_DEADLINE, str(CLOCK.now() - 1))

    machine.wait_ended("maximum lifetime reached")


def remove(path: Path) -> None:
    path.unlink()


def garble(path: Path) -> None:
    path.write_text("soon")


def endless(path: Path) -> None:
    path.write_text("inf")


def empty(path: Path) -> None:
    path.write_text("")


def not_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe")


def folder(path: Path) -> None:
    path.unlink()
    # A guardian that looked in between has found no file, and may have removed the machine by now.
    with suppress(FileNotFoundError):
        path.mkdir()


def pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.with_name("pipe").rename(path)


@pytest.mark.parametrize("file", [layout.LEASE, layout.HARD_DEADLINE])
@pytest.mark.parametrize("damage", [remove, garble, endless, empty, not_text, folder, pipe])
def test_a_file_that_cannot_be_read_ends_the_machine(
    machines: Machines, file: str, damage: Callable[[Path], None]
) -> None:
    machine = machines.machine()
    machine.start_shell(LIVES)
    wait(lambda: len(pids(machine)) == 1)

    damage(machine.directory / file)

    machine.wait_ended("no lease" if file == layout.LEASE else "no hard deadline")


def test_a_directory_that_disappears_ends_the_machine(machines: Machines) -> None:
    machine = machines.machine()
    machine.start_shell(LIVES)
    wait(lambda: len(pids(machine)) == 1)
    (agent,) = pids(machine)

    # At one blow: a guardian that looked at half of it would miss its lease first.
    machine.directory.rename(machines.state / "going")
    shutil.rmtree(machines.state / "going")

    machine.wait_ended("its directory is gone")
    wait_dead(agent)


def test_a_guardian_leaves_a_directory_alone_that_is_not_its_own_any_more(machines: Machines) -> None:
    machine = machines.machine()
    guardian = machine.guardian()
    machine.directory.rename(machines.state / "moved")
    machine.directory.mkdir()
    (machine.directory / "another's").touch()

    assert guardian is not None
    wait_dead(guardian.pid)
    assert (machine.directory / "another's").exists()
    assert (machines.state / "moved").exists()


def test_what_user_code_made_unwritable_goes_too(machines: Machines) -> None:
    machine = machines.machine()
    machine.start_shell(
        "mkdir -p a/b ../../outside; touch a/b/c ../../outside/kept; ln -s ../../outside link; chmod 0 a/b a; exit 0"
    )

    machine.wait_ended("drained")

    assert (machines.state / "outside" / "kept").exists()


# --- who kills the guardian ---


def test_a_killed_guardian_takes_the_machine_with_it(machines: Machines) -> None:
    """At once: nobody is left who could enforce the agent's grace."""
    machine = machines.machine(flush_grace=60.0)
    machine.start_shell("trap '' TERM; " + DAEMON + "; " + LIVES)
    daemon = machine.number("daemon")
    wait(lambda: len(pids(machine)) == 1)
    (agent,) = pids(machine)
    guardian = machine.guardian()
    assert guardian is not None

    os.kill(guardian.pid, signal.SIGKILL)

    wait(lambda: not machine.inhabitants())
    wait_dead(agent, daemon)


def test_a_killed_watcher_takes_the_agent_with_it_and_the_agent_starts_again(machines: Machines) -> None:
    machine = machines.machine()
    machine.start_shell(DAEMON + "; " + LIVES)
    daemon = machine.number("daemon")
    wait(lambda: len(pids(machine)) == 1)

    os.kill(machine.watcher().pid, signal.SIGKILL)

    wait(lambda: len(pids(machine)) == 2)
    assert not is_alive(pids(machine)[0])
    assert not is_alive(daemon)


def test_guardian_and_watcher_killed_at_once_take_the_agent_with_them(machines: Machines) -> None:
    machine = machines.machine()
    machine.start_shell(LIVES)
    wait(lambda: len(pids(machine)) == 1)
    guardian, watcher = machine.guardian(), machine.watcher()
    assert guardian is not None

    # Stopped first, so that neither can do anything about the other's death.
    for pid in (guardian.pid, watcher.pid):
        os.kill(pid, signal.SIGSTOP)
    for pid in (guardian.pid, watcher.pid):
        os.kill(pid, signal.SIGKILL)

    wait(lambda: not machine.inhabitants())
    wait_dead(pids(machine)[0])


def test_nothing_but_guardian_watcher_and_agent_runs_on_a_machine(machines: Machines) -> None:
    # Programs that another test has started, and nobody has asked about since they ended
    before = zombies()
    machine = machines.machine()
    machine.start_shell(LIVES)
    wait(lambda: len(pids(machine)) == 1)
    guardian = machine.guardian()
    assert guardian is not None

    assert {one.pid for one in machine.inhabitants()} == {guardian.pid, machine.watcher().pid, pids(machine)[0]}
    assert os.getsid(guardian.pid) == guardian.pid
    assert parent(guardian.pid) != os.getpid()
    assert zombies() <= before


def zombies() -> set[int]:
    """Children of this process that have ended, and that it has not taken notice of."""
    children = [int(name) for name in os.listdir("/proc") if name.isdigit() and parent(int(name)) == os.getpid()]
    return {pid for pid in children if processes.find(pid) is None}


def test_a_second_guardian_steps_back(machines: Machines) -> None:
    machine = machines.machine()
    first = machine.guardian()
    command = [sys.executable, "-m", "vmrun.provisioners.local.guardian", str(machine.directory)]

    second = subprocess.run(command, check=False, timeout=SOON)

    assert second.returncode == 75
    assert machine.guardian() == first
    assert debris(machines.state) == []
