"""The dead-man timer alone: no agent's help, no client, no reaper. It ends the machine, and only when it must."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

import pytest

from tests.docker import agents
from tests.docker.machines import BOOT, CLOCK, Booted, Machines, until
from vmrun.core.errors import Unreachable
from vmrun.machine import commands, layout

#: Seconds from the moment the timer must act until the machine is gone: a poll, its accuracy, a power-off, and a margin
#: for a busy computer.
SOON = 120.0


def change(booted: Booted, script: str) -> None:
    commands.succeeded(booted.host.run(["sudo", "-n", "sh", "-c", script]), "change the state")


def end(booted: Booted, script: str) -> None:
    """Change the state so that the timer is to act: it may do so before this computer has heard that it was done."""
    with contextlib.suppress(Unreachable):
        booted.host.run(["sudo", "-n", "sh", "-c", script])


def set_lease(booted: Booted, seconds: int) -> int:
    """Put the lease that many seconds from now, on the machine's clock, as an agent does; the lease."""
    change(booted, lease_in(seconds))
    lease = commands.read_timer(booted.host.run(commands.timer())).lease
    assert lease is not None
    return lease


def lease_in(seconds: int) -> str:
    """What puts the lease that many seconds from now."""
    return whole(f"$(($(date +%s) + {seconds}))")


def whole(lease: str) -> str:
    """What puts it in one go: the timer never sees half of it."""
    new = f"{layout.LEASE}.new"
    return f"echo {lease} > {new} && mv {new} {layout.LEASE}"


def test_a_machine_that_no_agent_came_to_ends_after_its_boot_grace(machines: Machines) -> None:
    """Nor a client: nobody ever logs in."""
    booted = machines.create(machines.plan(boot_grace=6.0))
    until(lambda: machines.is_gone(booted), BOOT + 6.0 + SOON, "the machine is gone")
    assert CLOCK.now() >= booted.instance.created_at + 6.0


def test_a_machine_ends_at_its_hard_deadline_though_its_lease_is_good(machines: Machines) -> None:
    booted = machines.create(machines.plan(lifetime=12.0, boot_grace=600.0))
    deadline = booted.plan.spec.hard_deadline
    until(lambda: machines.is_gone(booted), deadline - CLOCK.now() + SOON, "the machine is gone")
    assert CLOCK.now() >= deadline


def test_a_machine_whose_deadline_was_past_at_boot_ends(machines: Machines) -> None:
    booted = machines.create(machines.plan(lifetime=-10.0))
    until(lambda: machines.is_gone(booted), BOOT + SOON, "the machine is gone")


def test_a_renewed_lease_keeps_the_machine_alive(machines: Machines) -> None:
    booted = machines.boot()
    # Long enough for this computer to put another one in its place before it is over
    first = set_lease(booted, 25)
    later = set_lease(booted, 300)
    assert later > first + 200
    until(lambda: CLOCK.now() > first + 5, 60, "the first lease is over, by several polls")
    timer = commands.read_timer(booted.host.run(commands.timer()))
    assert (timer.lease, timer.active) == (later, "active")
    assert not machines.is_gone(booted)
    # And an expired one ends it.
    end(booted, lease_in(0))
    until(lambda: machines.is_gone(booted), SOON, "the machine is gone")


@pytest.mark.parametrize(
    "harm",
    [
        f"rm {layout.LEASE}",
        f"rm {layout.HARD_DEADLINE}",
        f"echo never > {layout.LEASE}",
        f"echo 99999999999999999999 > {layout.HARD_DEADLINE}",
        f"rm {layout.DEADMAN_SCRIPT}",
        f"chmod a-x {layout.DEADMAN_SCRIPT}",
    ],
)
def test_fails_closed(machines: Machines, harm: str) -> None:
    booted = machines.boot()
    assert commands.read_timer(booted.host.run(commands.timer())).fault(booted.plan.spec.hard_deadline) == ""
    end(booted, harm)
    until(lambda: machines.is_gone(booted), SOON, f"the machine is gone after {harm}")


def test_an_agent_that_runs_may_flush(machines: Machines, tmp_path: Path) -> None:
    booted = machines.boot(mounts=(str(tmp_path),), flush_grace=3.0 * SOON)
    agents.start(booted, json.dumps({"place": str(tmp_path), "flush": 2.0}))
    until((tmp_path / "started").exists, 20, "the agent runs")
    start = time.monotonic()
    end(booted, f"rm {layout.LEASE}")
    until(lambda: machines.is_gone(booted), SOON + 2.0, "the machine is gone")
    # It was told once, had its two seconds, and was not started again; nobody waited the whole grace.
    assert (tmp_path / "flushed").read_text() == (tmp_path / "told").read_text() == (tmp_path / "started").read_text()
    assert time.monotonic() - start >= 2.0


def test_an_agent_that_does_not_stop_does_not_keep_the_machine(machines: Machines, tmp_path: Path) -> None:
    # Long enough for an agent to hear of it on a busy computer
    booted = machines.boot(mounts=(str(tmp_path),), flush_grace=15.0)
    agents.start(booted, json.dumps({"place": str(tmp_path), "flush": 3600.0}), flush_grace=16.0)
    until((tmp_path / "started").exists, 20, "the agent runs")
    end(booted, f"rm {layout.LEASE}")
    until(lambda: machines.is_gone(booted), SOON + 15.0, "the machine is gone")
    assert (tmp_path / "told").exists()
    assert not (tmp_path / "flushed").exists()


def test_an_agent_that_keeps_failing_does_not_keep_the_machine(machines: Machines, tmp_path: Path) -> None:
    """It is started again and again for a while; the lease, which it never renewed, ends the machine."""
    booted = machines.boot(mounts=(str(tmp_path),))
    agents.start(booted, json.dumps({"place": str(tmp_path), "code": 1}))
    until((tmp_path / "started").exists, 20, "the agent runs")
    (tmp_path / "end").touch()
    until(lambda: len((tmp_path / "started").read_text().split()) >= 2, 20, "the agent was started again")
    end(booted, lease_in(3))
    until(lambda: machines.is_gone(booted), 3.0 + SOON, "the machine is gone")


def test_a_self_delete_program_runs_before_the_power_off(machines: Machines, tmp_path: Path) -> None:
    program = f"#!/bin/sh\nid -u > {tmp_path}/deleted\n"
    booted = machines.boot(mounts=(str(tmp_path),), self_delete=program)
    end(booted, f"rm {layout.LEASE}")
    until(lambda: machines.is_gone(booted), SOON, "the machine is gone")
    assert (tmp_path / "deleted").read_text() == "0\n"


def test_a_self_delete_program_that_fails_does_not_keep_the_machine(machines: Machines) -> None:
    booted = machines.boot(self_delete="#!/bin/sh\nexit 1\n")
    end(booted, f"rm {layout.LEASE}")
    until(lambda: machines.is_gone(booted), SOON, "the machine is gone")


def test_the_job_user_cannot_disarm_it(machines: Machines) -> None:
    booted = machines.boot()
    job = ["sudo", "-n", "-u", layout.JOB_USER]
    for argv in (
        ["systemctl", "--no-ask-password", "stop", layout.DEADMAN_TIMER],
        ["systemctl", "--no-ask-password", "mask", layout.DEADMAN_TIMER],
        ["sh", "-c", f"echo 99999999999 > {layout.LEASE}"],
        ["rm", "-f", layout.LEASE],
        ["sh", "-c", f": > {layout.DEADMAN_SCRIPT}"],
    ):
        assert booted.host.run([*job, *argv]).exit_code != 0, argv
    assert commands.read_timer(booted.host.run(commands.timer())).fault(booted.plan.spec.hard_deadline) == ""


def test_why_it_ended_is_written_down(machines: Machines, tmp_path: Path) -> None:
    """Seen through the self-delete program, the last thing that runs."""
    program = f"#!/bin/sh\ncat {layout.WHY} > {tmp_path}/why\n"
    booted = machines.boot(mounts=(str(tmp_path),), self_delete=program)
    end(booted, whole("1"))
    until(lambda: machines.is_gone(booted), SOON, "the machine is gone")
    assert (tmp_path / "why").read_text() == "lease expired\n"
