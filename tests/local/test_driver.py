"""The local driver: what a crash, a race, a hung guardian or a hostile directory does to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tests.local.machines import CLOCK, SOON, Machine, Machines, debris, is_alive, python, wait, wait_dead
from vmrun.core.clouds import CloudError, Fault, InstanceNotFound, InstanceSpec, InstanceState
from vmrun.provisioners.local import config, driver, layout, processes
from vmrun.provisioners.local.driver import LocalProvisioner

#: Makes the machine of a spec on standard input; with an argument, dies at that point of it.
CREATE = """
import json, os, signal, sys
from pathlib import Path
from vmrun.core.clock import SystemClock
from vmrun.core.clouds import InstanceSpec, Offer
from vmrun.provisioners.local import layout
from vmrun.provisioners.local.driver import LocalProvisioner

fields = json.loads(sys.stdin.readline())
spec = InstanceSpec(**{**fields, "offer": Offer(**fields["offer"])})
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2:] == ["before-start"]: LocalProvisioner._start_guardian = die
if sys.argv[2:] == ["before-rename"]: os.rename, write = die, layout.write_text
if sys.argv[2:] == ["before-rename"]: layout.write_text = lambda path, text: Path(path).write_text(text)
print("ready", flush=True)
sys.stdin.readline()
print(LocalProvisioner(Path(sys.argv[1]), SystemClock()).create(spec).state.value)
"""


def creator(machines: Machines, spec: InstanceSpec, *point: str) -> subprocess.Popen[str]:
    """Another process that is about to make the machine, and does when it is given a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", CREATE, str(machines.state), *point],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(asdict(spec)) + "\n")
    process.stdin.flush()
    assert process.stdout.readline() == "ready\n"
    return process


def state_of(machines: Machines, machine: Machine) -> InstanceState:
    return machines.provisioner.get(machine.spec.name).state


# --- crashes and races of clients ---


def test_a_machine_whose_maker_died_before_the_start_is_started_by_the_next(machines: Machines) -> None:
    machine = Machine(machines.state, machines.spec())
    crashed = creator(machines, machine.spec, "before-start")
    crashed.communicate("go\n", timeout=SOON)
    assert crashed.returncode == -signal.SIGKILL
    assert state_of(machines, machine) is InstanceState.stopped
    assert [one.id for one in machines.provisioner.instances(machines.owner)] == [machine.spec.name]

    made = machines.provisioner.create(machine.spec)

    assert made.state is InstanceState.running
    assert len(machine.inhabitants()) == 1


def test_a_machine_whose_maker_died_before_the_start_can_be_deleted(machines: Machines) -> None:
    machine = Machine(machines.state, machines.spec())
    creator(machines, machine.spec, "before-start").communicate("go\n", timeout=SOON)

    machines.provisioner.delete(machine.spec.name)

    machine.wait_ended("deleted")


def test_a_half_made_directory_is_a_leftover_that_can_be_deleted(machines: Machines) -> None:
    machine = Machine(machines.state, machines.spec())
    creator(machines, machine.spec, "before-rename").communicate("go\n", timeout=SOON)
    (left,) = debris(machines.state)
    assert list(machines.provisioner.instances(machines.owner)) == []
    assert list(machines.provisioner.leftovers(machines.owner)) == [], "it might still be being made"

    os.utime(machines.state / layout.MACHINES / left, (0, 0))
    (leftover,) = machines.provisioner.leftovers(machines.owner)
    assert (leftover.id, leftover.name) == (left, machine.spec.name)
    assert list(machines.provisioner.leftovers(machines.other_owner)) == []
    machines.provisioner.delete(leftover.id)

    assert debris(machines.state) == []


def test_many_makers_at_once_make_one_machine_with_one_guardian(machines: Machines) -> None:
    machine = Machine(machines.state, machines.spec())
    makers = [creator(machines, machine.spec) for _ in range(6)]

    for maker in makers:
        assert maker.stdin is not None
        maker.stdin.write("go\n")
        maker.stdin.flush()

    assert [maker.communicate(timeout=SOON)[0] for maker in makers] == ["running\n"] * 6
    assert len(machine.inhabitants()) == 1
    assert debris(machines.state) == []


def test_a_machine_that_ended_is_not_made_again(machines: Machines) -> None:
    machine = machines.machine()
    machine.start_agent("/bin/true")
    machine.wait_ended("drained")

    again = machines.provisioner.create(machine.spec)

    assert again.state is InstanceState.gone
    assert not machine.directory.exists()


def test_a_stopped_machine_is_not_started_again(machines: Machines) -> None:
    machine = machines.machine()
    guardian = machine.guardian()
    assert guardian is not None
    os.kill(guardian.pid, signal.SIGKILL)
    wait(lambda: state_of(machines, machine) is InstanceState.stopped)

    assert machines.provisioner.create(machine.spec).state is InstanceState.stopped
    assert machine.inhabitants() == []


def test_the_maker_may_die_and_the_machine_lives_on(machines: Machines) -> None:
    machine = Machine(machines.state, machines.spec())
    maker = creator(machines, machine.spec)
    maker.communicate("go\n", timeout=SOON)

    assert maker.returncode == 0
    assert state_of(machines, machine) is InstanceState.running


# --- deleting ---


def test_a_machine_without_guardian_is_listed_as_stopped_and_deleting_it_cleans_up(machines: Machines) -> None:
    """Guardian and watcher die at one blow, and a worker with a session of its own outlives them."""
    machine = machines.machine()
    machine.start_shell("(setsid /bin/sh -c 'echo $$ > stray; exec sleep 300' &); exec sleep 300")
    stray = machine.number("stray")
    guardian, watcher = machine.guardian(), machine.watcher()
    assert guardian is not None
    for signum in (signal.SIGSTOP, signal.SIGKILL):
        for process in (guardian, watcher):
            os.kill(process.pid, signum)
    wait(lambda: state_of(machines, machine) is InstanceState.stopped)
    assert [one.state for one in machines.provisioner.instances(machines.owner)] == [InstanceState.stopped]
    assert is_alive(stray)

    machines.provisioner.delete(machine.spec.name)

    wait_dead(stray)
    machine.wait_ended("deleted")


def test_a_guardian_that_hangs_is_killed(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "_DELETE_SECONDS", 0.2)
    machine = machines.machine(flush_grace=0.1)
    machine.start_shell("echo $$ > agent; exec sleep 300")
    agent = machine.number("agent")
    guardian = machine.guardian()
    assert guardian is not None
    for pid in (guardian.pid, machine.watcher().pid):
        os.kill(pid, signal.SIGSTOP)

    machines.provisioner.delete(machine.spec.name)

    machine.wait_ended("deleted")
    wait_dead(agent)


def test_deleting_waits_for_an_agent_that_flushes(machines: Machines) -> None:
    machine = machines.machine(flush_grace=SOON)
    machine.start_shell(
        "trap 'sleep 0.4; echo flushed > ../../flushed; exit 0' TERM; echo $$ > agent; while :; do sleep 0.05; done"
    )
    machine.number("agent")

    machines.provisioner.delete(machine.spec.name)

    assert (machines.state / "flushed").exists()
    assert not machine.directory.exists()
    assert machine.inhabitants() == []


def test_deleting_leaves_processes_alone_whose_number_was_used_again(machines: Machines) -> None:
    """A guardian's record that names a process with another start time names nobody."""
    machine = machines.machine()
    guardian = machine.guardian()
    assert guardian is not None
    os.kill(guardian.pid, signal.SIGKILL)
    wait_dead(guardian.pid)
    bystander = subprocess.Popen(["sleep", "300"])
    try:
        there = processes.find(bystander.pid)
        assert there is not None
        record = {**processes.to_record(there), "start": there.start - 1}
        layout.write_text(f"{machine.directory}/{layout.GUARDIAN}", json.dumps(record))
        assert state_of(machines, machine) is InstanceState.stopped

        machines.provisioner.delete(machine.spec.name)

        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
    machine.wait_ended("deleted")


def test_deleting_leaves_another_deployments_machine_of_the_same_name_alone(machines: Machines) -> None:
    machine = machines.machine()
    guardian = machine.guardian()
    assert guardian is not None
    marks = {layout.MARK_NAME: machine.spec.name, layout.MARK_DIRECTORY: f"/elsewhere/{machine.spec.name}"}
    bystander = subprocess.Popen(["sleep", "300"], env={**os.environ, **marks})
    try:
        os.kill(guardian.pid, signal.SIGKILL)
        wait_dead(guardian.pid)

        machines.provisioner.delete(machine.spec.name)

        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_client_that_blocks_signals_makes_a_machine_that_hears_them(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "_DELETE_SECONDS", 200.0)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})
    try:
        machine = machines.machine()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    asked = CLOCK.monotonic()

    machines.provisioner.delete(machine.spec.name)

    machine.wait_ended("deleted")
    assert CLOCK.monotonic() - asked < driver._DELETE_SECONDS / 2, "it had to be ended by force"


def test_many_deletes_at_once_are_one(machines: Machines) -> None:
    machine = machines.machine()
    program = (
        "import sys; from pathlib import Path; from vmrun.core.clock import SystemClock; "
        "from vmrun.provisioners.local.driver import LocalProvisioner; "
        "LocalProvisioner(Path(sys.argv[1]), SystemClock()).delete(sys.argv[2])"
    )
    command = [sys.executable, "-c", program, str(machines.state), machine.spec.name]
    deleters = [subprocess.Popen(command) for _ in range(4)]

    assert [deleter.wait(SOON) for deleter in deleters] == [0] * 4
    machine.wait_ended("deleted")


# --- what is not ours, and what is wrong ---


def test_only_directories_of_machines_are_listed(machines: Machines) -> None:
    machine = machines.machine()
    folder = machines.state / layout.MACHINES
    target = machines.state / "target"
    target.mkdir()
    (folder / machines.spec().name).symlink_to(target)
    (folder / machines.spec().name).write_text("a file")
    (folder / "Not a name").mkdir()

    assert [one.id for one in machines.provisioner.instances(machines.owner)] == [machine.spec.name]

    (folder / "Not a name").rmdir()
    for path in folder.iterdir():
        if path != machine.directory:
            path.unlink()


def test_a_machine_whose_record_is_damaged_is_still_listed_by_its_name(machines: Machines) -> None:
    machine = machines.machine()
    (machine.directory / layout.INSTANCE).write_text("{")

    (found,) = machines.provisioner.instances(machines.owner)

    assert (found.id, found.state, found.tags) == (machine.spec.name, InstanceState.running, {})


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../escape"},
        {"name": ""},
        {"name": "a" * 101},
        {"name": ".new-x-1"},
        {"user_data": ""},
        {"user_data": "#cloud-config"},
        {"user_data": '{"hard_deadline": 1}'},
    ],
)
def test_a_spec_that_cannot_be_carried_out_is_a_configuration_fault(machines: Machines, change: dict[str, str]) -> None:
    with pytest.raises(CloudError) as caught:
        machines.provisioner.create(replace(machines.spec(), **change))  # type: ignore[arg-type]

    assert caught.value.fault is Fault.config
    assert caught.value.hint
    assert not machines.state.exists()


def test_the_same_vm_with_other_user_data_is_refused(machines: Machines) -> None:
    machine = machines.machine()
    other = machines.spec(limits={"boot_grace": 31.0}).user_data

    with pytest.raises(CloudError) as caught:
        machines.provisioner.create(replace(machine.spec, user_data=other))

    assert caught.value.fault is Fault.config


def test_a_state_directory_that_cannot_be_used_is_an_error_with_a_hint(machines: Machines, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    provisioner = LocalProvisioner(tmp_path / "file" / "state", CLOCK)

    for call in (lambda: provisioner.create(machines.spec()), lambda: list(provisioner.instances(machines.owner))):
        with pytest.raises(CloudError) as caught:
            call()
        assert caught.value.hint


def test_a_guardian_that_cannot_start_is_an_error_and_a_later_create_starts_it(machines: Machines) -> None:
    spec = machines.spec()
    broken = LocalProvisioner(machines.state, CLOCK, python="/bin/false")

    with pytest.raises(CloudError) as caught:
        broken.create(spec)

    assert layout.GUARDIAN_LOG in caught.value.hint
    assert machines.provisioner.create(spec).state is InstanceState.running


def test_everything_of_a_machine_is_private(machines: Machines) -> None:
    machine = machines.machine()

    for folder in (machines.state, machines.state / layout.MACHINES, machine.directory):
        assert folder.stat().st_mode & 0o077 == 0
    for name in (layout.LEASE, layout.HARD_DEADLINE, layout.INSTANCE, layout.GUARDIAN):
        assert (machine.directory / name).stat().st_mode & 0o077 == 0


def test_the_directory_is_known_while_the_machine_is(machines: Machines) -> None:
    machine = machines.machine()
    assert machines.provisioner.directory(machine.spec.name) == machine.directory

    machines.provisioner.delete(machine.spec.name)

    for unknown in (machine.spec.name, "../machines", ""):
        with pytest.raises(InstanceNotFound):
            machines.provisioner.directory(unknown)


def test_a_machine_on_a_machine_goes_with_it(machines: Machines) -> None:
    """A job that makes local machines of its own leaves none behind when its machine ends."""
    outer, inner = machines.machine(), machines.spec()
    script = f"import sys; sys.path.append({str(Path(driver.__file__).parents[3])!r})\n" + CREATE + "\nsignal.pause()"
    text = json.dumps(asdict(inner))
    outer.put("inner.json", text + "\ngo\n")
    outer.start_agent("/bin/sh", "-c", 'exec "$0" "$@" < inner.json', *python(script, str(machines.state)))
    made = Machine(machines.state, inner)
    wait(lambda: made.guardian() is not None)

    machines.provisioner.delete(outer.spec.name)

    outer.wait_ended("deleted")
    wait(lambda: made.inhabitants() == [])


def test_a_guardian_starts_fast_enough_not_to_be_noticed(machines: Machines) -> None:
    """It loads little: no subprocess, no dataclasses, nothing that is not the standard library's."""
    program = (
        "import sys; sys.path.append(sys.argv[1]); import vmrun.provisioners.local.guardian; "
        "print(*sorted(sys.modules))"
    )
    root = str(Path(driver.__file__).parents[3])
    done = subprocess.run(python(program, root), capture_output=True, text=True, check=True, timeout=SOON)
    loaded = done.stdout.split()

    assert {"dataclasses", "subprocess", "logging", "asyncio", "inspect"}.isdisjoint(loaded)
    ours = {name for name in loaded if name.startswith("vmrun.") and not name.startswith("vmrun.provisioners")}
    assert ours == {"vmrun.core", "vmrun.core.clock"}
    assert config.parse(machines.spec().user_data).poll == 0.1
