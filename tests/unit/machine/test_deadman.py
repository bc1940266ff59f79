"""The dead-man script's judgement and its steps, under two shells, with a manager that is a stand-in."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.unit.machine.stubs import Stubs
from vmrun.machine import units

NOW = 1_800_000_000
SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]


class Machine:
    """A state directory, a clock, and a manager that notes what it is told."""

    def __init__(self, place: Path, shell: str) -> None:
        self.place = place
        self.state = place / "state"
        self.state.mkdir()
        self.sysrq = place / "sysrq"
        self.uptime = place / "uptime"
        self.uptime.write_text("1000.52 1900.10\n")
        self.seen = place / "seen"
        self._shell = shutil.which(shell) or shell
        self._script = place / "vmrun-deadman"
        self._script.write_text(units.deadman_script())
        self.stubs = Stubs(place)
        self.stubs.add("date", f"echo {NOW}")
        self.stubs.add("logger")
        self.stubs.add("sleep")
        self.stubs.add("systemd-detect-virt", "exit 0")
        self.agent("inactive")

    def times(self, *, lease: str | None, hard: str | None) -> None:
        for name, text in (("lease", lease), ("hard_deadline", hard)):
            if text is not None:
                (self.state / name).write_text(text)

    def agent(self, *states: str) -> None:
        """What the manager says of the agent's unit, one answer after the other, the last one for good."""
        asked = self.place / "asked"
        cases = "\n".join(f"{number}) echo {state} ;;" for number, state in enumerate(states[:-1]))
        self.stubs.add(
            "systemctl",
            f'[ "$1" = show ] || exit 0\nn=$(cat {asked} 2>/dev/null || echo 0)\n'
            f"echo $((n + 1)) > {asked}\ncase $n in\n{cases}\n*) echo {states[-1]} ;;\nesac",
        )

    def judge(self, *, flush: int = 60) -> str:
        """Run the script once; why it ended the machine, empty if it did not."""
        done = self.stubs.run(
            [self._shell, str(self._script)],
            VMRUN_STATE=str(self.state),
            VMRUN_FLUSH_GRACE=str(flush),
            VMRUN_SYSRQ=str(self.sysrq),
            VMRUN_UPTIME=str(self.uptime),
            VMRUN_SEEN=str(self.seen),
        )
        assert done.returncode == 0, done.stderr
        why = self.state / "why"
        return why.read_text().strip() if why.is_file() else ""

    def told(self) -> list[str]:
        """What the manager was told to do, in order, with the pauses between."""
        return [call for call in self.stubs.calls() if call.startswith(("systemctl", "sleep")) and " show " not in call]


@pytest.fixture(params=SHELLS)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    return Machine(tmp_path, request.param)


END = [
    "systemctl stop --no-block vmrun-agent.service",
    "systemctl poweroff",
    "sleep 120",
    "systemctl poweroff --force",
    "sleep 30",
    "systemctl poweroff --force --force",
    "sleep 30",
]


@pytest.mark.parametrize(
    ("lease", "hard"),
    [
        (f"{NOW + 1}\n", f"{NOW + 1}\n"),
        (f"{NOW + 1}", f"{NOW + 3600}"),
        ("999999999999\n", "999999999999\n"),
    ],
)
def test_lives_while_lease_and_deadline_are_ahead(machine: Machine, lease: str, hard: str) -> None:
    machine.times(lease=lease, hard=hard)
    assert machine.judge() == ""
    assert machine.told() == []


@pytest.mark.parametrize(
    ("lease", "hard", "why"),
    [
        (f"{NOW}\n", f"{NOW + 100}\n", "lease expired"),
        (f"{NOW - 1}\n", f"{NOW + 100}\n", "lease expired"),
        ("0\n", f"{NOW + 100}\n", "lease expired"),
        (f"{NOW + 100}\n", f"{NOW}\n", "hard deadline reached"),
        (f"{NOW + 100}\n", "08\n", "hard deadline reached"),
        (f"{NOW - 1}\n", f"{NOW - 1}\n", "hard deadline reached"),
        (None, f"{NOW + 100}\n", "no lease"),
        (f"{NOW + 100}\n", None, "no hard deadline"),
        (None, None, "no hard deadline"),
        ("", f"{NOW + 100}\n", "no lease"),
        ("\n", f"{NOW + 100}\n", "no lease"),
        (f"\n{NOW + 100}\n", f"{NOW + 100}\n", "no lease"),
        (f"{NOW + 100}.5\n", f"{NOW + 100}\n", "no lease"),
        (f" {NOW + 100}\n", f"{NOW + 100}\n", "no lease"),
        (f"-{NOW}\n", f"{NOW + 100}\n", "no lease"),
        ("$(echo 9999999999)\n", f"{NOW + 100}\n", "no lease"),
        # Numbers that a shell cannot compare, which would let the machine live for ever.
        ("9" * 13 + "\n", f"{NOW + 100}\n", "no lease"),
        (f"{NOW + 100}\n", "9" * 40 + "\n", "no hard deadline"),
    ],
)
def test_ends_when_time_is_up_or_unknown(machine: Machine, lease: str | None, hard: str | None, why: str) -> None:
    machine.times(lease=lease, hard=hard)
    assert machine.judge() == why
    assert machine.told() == END


def turn(machine: Machine, *, clock: int, up: int) -> None:
    """What the clock says, and how many seconds the machine has been up."""
    machine.stubs.add("date", f"echo {clock}")
    machine.uptime.write_text(f"{up}.07 12.00\n")


def test_a_clock_that_is_put_back_does_not_prolong_a_lease(machine: Machine) -> None:
    machine.times(lease=f"{NOW + 900}\n", hard=f"{NOW + 90_000}\n")
    assert machine.judge() == ""
    # Two hours back, and nobody renews
    turn(machine, clock=NOW - 7200, up=1899)
    assert machine.judge() == ""
    turn(machine, clock=NOW - 6300, up=1900)
    assert machine.judge() == "lease expired, by the time since the boot"
    assert machine.told() == END


def test_a_lease_that_is_renewed_counts_anew(machine: Machine) -> None:
    machine.times(lease=f"{NOW + 900}\n", hard=f"{NOW + 90_000}\n")
    assert machine.judge() == ""
    turn(machine, clock=NOW - 7200, up=1890)
    # As the agent does, by the clock as it is now
    machine.times(lease=f"{NOW - 7200 + 1800}\n", hard=None)
    assert machine.judge() == ""
    turn(machine, clock=NOW - 7200 + 1799, up=1890 + 1799)
    assert machine.judge() == ""
    # A reboot forgets what was seen, and leaves the clock
    machine.seen.unlink()
    turn(machine, clock=NOW - 7200 + 1799, up=20)
    assert machine.judge() == ""


@pytest.mark.parametrize("harm", ["no uptime", "no place", "rubbish"])
def test_without_a_time_since_the_boot_the_clock_alone_counts(machine: Machine, harm: str) -> None:
    machine.times(lease=f"{NOW + 900}\n", hard=f"{NOW + 90_000}\n")
    if harm == "no uptime":
        machine.uptime.unlink()
    elif harm == "no place":
        machine.seen.mkdir()
    else:
        machine.seen.write_text(f"{NOW + 900} soon\n")
    assert machine.judge() == ""
    machine.stubs.add("date", f"echo {NOW + 900}")
    assert machine.judge() == "lease expired"


@pytest.mark.parametrize("clock", ["exit 1", "echo later", "echo"])
def test_ends_without_a_clock(machine: Machine, clock: str) -> None:
    machine.stubs.add("date", clock)
    machine.times(lease=f"{NOW + 100}", hard=f"{NOW + 100}")
    assert machine.judge() == "no clock"
    assert machine.told() == END


def test_a_directory_in_the_place_of_a_file_ends_it(machine: Machine) -> None:
    machine.times(lease=None, hard=f"{NOW + 100}")
    (machine.state / "lease").mkdir()
    assert machine.judge() == "no lease"


def test_waits_while_the_agent_flushes_and_no_longer(machine: Machine) -> None:
    machine.times(lease="0", hard=f"{NOW + 100}")
    machine.agent("active", "deactivating", "deactivating", "inactive")
    machine.judge()
    assert machine.told() == [END[0], "sleep 1", "sleep 1", "sleep 1", *END[1:]]


@pytest.mark.parametrize("state", ["active", "activating", "deactivating", "reloading"])
def test_waits_no_longer_than_the_grace(machine: Machine, state: str) -> None:
    machine.times(lease="0", hard=f"{NOW + 100}")
    machine.agent(state)
    machine.judge(flush=4)
    assert machine.told() == [END[0], *["sleep 1"] * 4, *END[1:]]


@pytest.mark.parametrize("state", ["inactive", "failed", ""])
def test_does_not_wait_for_an_agent_that_does_not_run(machine: Machine, state: str) -> None:
    machine.times(lease="0", hard=f"{NOW + 100}")
    machine.agent(state)
    machine.judge()
    assert machine.told() == END


def test_powers_off_though_the_manager_fails(machine: Machine) -> None:
    """Each step is tried, whatever became of the one before; the last one needs no manager."""
    machine.times(lease="0", hard=f"{NOW + 100}")
    machine.stubs.add("systemctl", "exit 1")
    machine.stubs.add("systemd-detect-virt", "exit 1")
    machine.judge()
    assert machine.told() == END
    assert machine.sysrq.read_text() == "o\n"


def test_a_container_does_not_power_off_the_machine_outside(machine: Machine) -> None:
    machine.times(lease="0", hard=f"{NOW + 100}")
    machine.judge()
    assert "systemd-detect-virt --quiet --container" in machine.stubs.calls()
    assert not machine.sysrq.exists()


@pytest.mark.parametrize("code", [0, 1])
def test_deletes_itself_before_the_power_off_where_it_can(machine: Machine, code: int) -> None:
    machine.times(lease="0", hard=f"{NOW + 100}")
    program = machine.state / "self-delete"
    program.write_text(f"#!/bin/sh\nsystemctl self-delete\nexit {code}\n")
    program.chmod(0o700)
    machine.judge()
    assert machine.told() == [END[0], "systemctl self-delete", *END[1:]]


def test_ends_though_the_reason_cannot_be_written(machine: Machine) -> None:
    machine.times(lease="0", hard=f"{NOW + 100}")
    (machine.state / "why").mkdir()
    machine.judge()
    assert machine.told() == END
