"""Local machines for tests: made with limits of seconds, looked at through /proc, ended in any case."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.suites.provisioner import poll_until
from vmrun.core.clock import SystemClock
from vmrun.core.clouds import TAG_OWNER, TAG_VM, Instance, InstanceSpec, Need, instance_name
from vmrun.core.ids import new_id
from vmrun.provisioners.local import config, driver, layout, processes
from vmrun.provisioners.local.config import user_data
from vmrun.provisioners.local.driver import LocalProvisioner
from vmrun.transport.process import ProcessHost

#: Seconds within which anything that is waited for must happen.
SOON = 60.0
CLOCK = SystemClock()
#: The guardian's program itself, on clocks that jump ahead, by the third argument's seconds, when the file that is the
#: second one appears: so that what takes minutes, which no busy computer uses up by itself, need not be waited for.
JUMPS = """
import os, sys
from vmrun.core.clock import SystemClock
from vmrun.provisioners.local import guardian

def jump():
    return float(sys.argv[3]) if os.path.exists(sys.argv[2]) else 0.0

class Clock(SystemClock):
    def now(self):
        return super().now() + jump()

    def monotonic(self):
        return super().monotonic() + jump()

guardian.SystemClock = Clock
sys.exit(guardian.main(sys.argv[1:2]))
"""


@dataclass
class Machine:
    """One local machine, seen from outside."""

    state: Path
    spec: InstanceSpec
    #: Every process that was seen on it.
    seen: set[processes.Process] = field(default_factory=set)

    @property
    def directory(self) -> Path:
        return self.state / layout.MACHINES / self.spec.name

    def why(self) -> str:
        """Why it was ended; empty if it was not."""
        record = layout.read_json(f"{self.state}/{layout.ENDED}/{self.spec.name}.json") or {}
        return str(record.get("why", ""))

    def guardian(self) -> processes.Process | None:
        return processes.from_record(layout.read_json(f"{self.directory}/{layout.GUARDIAN}"))

    def watcher(self) -> processes.Process:
        """The process between the guardian and its agent."""
        guardian = self.guardian()
        assert guardian is not None
        (watcher,) = [one for one in processes.descendants(guardian.pid) if parent(one.pid) == guardian.pid]
        return watcher

    def inhabitants(self) -> list[processes.Process]:
        """Every living process that bears the machine's marks."""
        marks = {layout.MARK_NAME: self.spec.name, layout.MARK_DIRECTORY: str(self.directory)}
        found = processes.marked(marks)
        self.seen.update(found)
        return found

    def start_agent(self, *argv: str) -> None:
        self.put(layout.AGENT_ARGV, json.dumps(argv))

    def start_shell(self, script: str) -> None:
        self.start_agent("/bin/sh", "-c", script)

    def put(self, name: str, text: str) -> None:
        ProcessHost(self.directory).put(name, [text.encode()])

    def renew(self, seconds: float) -> None:
        self.put(layout.LEASE, str(CLOCK.now() + seconds))

    def number(self, name: str) -> int:
        """The process number that a script wrote into a file of the machine; waits for it."""
        path = self.directory / name
        wait(lambda: path.exists() and path.read_text().endswith("\n"))
        return int(path.read_text().split()[-1])

    def wait_ended(self, why: str) -> None:
        """Wait for the machine's end, and see that nothing of it is left."""
        wait(lambda: not self.directory.exists() and not self.inhabitants() and not debris(self.state))
        assert self.why() == why


def wait(condition: Callable[[], bool], seconds: float = SOON) -> None:
    assert poll_until(condition, seconds), "it did not happen in time"


def wait_dead(*pids: int) -> None:
    """Wait until none of these processes lives; one that is just ending has no environment any more."""
    wait(lambda: not any(is_alive(pid) for pid in pids))


def parent(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def is_alive(pid: int) -> bool:
    return processes.find(pid) is not None


def debris(state: Path) -> list[str]:
    """What lies beside the machines."""
    machines = state / layout.MACHINES
    return [path.name for path in machines.iterdir() if not layout.is_name(path.name)] if machines.exists() else []


class Machines:
    """The driver on a fresh state directory, and a maker of machines."""

    boot_seconds = SOON
    delete_seconds = SOON

    def __init__(self, state: Path, rng: random.Random) -> None:
        self.state = state
        self.rng = rng
        self.provisioner = LocalProvisioner(state, CLOCK)
        self.owner = new_id(CLOCK, rng)
        self.other_owner = new_id(CLOCK, rng)

    def spec(self, owner: str = "", limits: dict[str, float] | None = None) -> InstanceSpec:
        vm = new_id(CLOCK, self.rng)
        owner = owner or self.owner
        settings: dict[str, float] = {
            "boot_grace": 120.0,
            "poll": 0.1,
            "flush_grace": 1.0,
            "lifetime": 600.0,
            **(limits or {}),
        }
        hard_deadline = CLOCK.now() + settings.pop("lifetime")
        return InstanceSpec(
            vm=vm,
            owner=owner,
            name=instance_name(owner, vm),
            offer=next(iter(self.provisioner.offers(Need()))),
            user_data=user_data(hard_deadline=hard_deadline, **settings),
            hard_deadline=hard_deadline,
            tags={TAG_OWNER: owner, TAG_VM: vm},
        )

    def machine(self, **limits: float) -> Machine:
        """A machine that runs."""
        spec = self.spec(limits=limits)
        self.provisioner.create(spec)
        return Machine(self.state, spec)

    def jumping(self, jump: Path, by: float, **limits: float) -> Machine:
        """A machine that runs, and for which it is `by` seconds later when the file `jump` appears."""
        spec = self.spec(limits=limits)
        self.provisioner._make(spec, config.parse(spec.user_data))
        machine = Machine(self.state, spec)
        directory = str(machine.directory)
        environment = {**os.environ, **driver._marks(directory)}
        subprocess.run(
            [sys.executable, "-c", JUMPS, directory, str(jump), str(by)], check=True, timeout=SOON, env=environment
        )
        return machine

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        return poll_until(condition, seconds)

    def power_off(self, instance: Instance) -> None:
        path = self.provisioner.directory(instance.id) / layout.AGENT_ARGV
        layout.write_text(str(path), json.dumps(["/bin/true"]))

    def close(self) -> None:
        """End every machine, whatever state its test left it in."""
        for name in os.listdir(self.state / layout.MACHINES) if self.state.exists() else []:
            marks = {layout.MARK_NAME: name, layout.MARK_DIRECTORY: str(self.state / layout.MACHINES / name)}
            assert processes.kill_all(lambda marks=marks: processes.marked(marks), CLOCK, SOON)  # type: ignore[misc]
            self.provisioner.delete(name)


def python(script: str, *arguments: str) -> Sequence[str]:
    """The command of a small Python program that starts fast."""
    return [sys.executable, "-I", "-S", "-c", script, *arguments]
