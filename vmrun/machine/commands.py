"""What is done on a VM while it is brought up: argument lists, built here and run elsewhere.

The programs are fixed texts of this package; data reaches them as arguments or as standard input, never spliced in.
Each command may be sent again after its reply was lost. Those that print JSON have a reader beside them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from vmrun.core.errors import Unreachable
from vmrun.core.hosts import Completed
from vmrun.core.units import format_duration

from . import layout

SUDO = ("sudo", "-n")
#: Seconds that a machine's clock may differ from that of the client, which set the deadline that the timer judges by.
CLOCK_MAX = 300.0


@dataclass(frozen=True, slots=True)
class Facts:
    """What a machine is; sizes in bytes."""

    python: str
    arch: str
    libc: str
    cpus: int
    memory: int
    disk_free: int
    boot_id: str
    hostname: str
    uid: int


@dataclass(frozen=True, slots=True)
class Boot:
    """How far cloud-init came."""

    finished: bool
    disabled: bool
    stage: str
    errors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Timer:
    """The dead-man timer as the machine sees it; times in seconds since the epoch, on its clock."""

    active: str
    enabled: str
    #: Seconds until it judges next; None while it judges, or never.
    next_in: float | None
    now: int
    lease: int | None
    hard_deadline: int | None

    def fault(self, hard_deadline: float) -> str:
        """Why this machine must not be used, empty if its timer is armed for this deadline or an earlier one."""
        if self.active != "active":
            return f"the dead-man timer is {self.active or 'missing'}, not active"
        if self.enabled != "enabled":
            return f"the dead-man timer is {self.enabled or 'missing'}, not enabled: a reboot would disarm it"
        if self.hard_deadline is None or self.hard_deadline > hard_deadline:
            return f"the hard deadline on the machine is {self.hard_deadline}, not {hard_deadline:.0f}"
        if self.lease is None:
            return "there is no lease on the machine"
        if self.next_in is not None and self.now + self.next_in > hard_deadline:
            return "the dead-man timer looks next after the hard deadline"
        return ""

    def clock_fault(self, now: float) -> str:
        """Why its clock is none to end this machine by; "" if it agrees with `now`, seconds since the epoch."""
        ahead = self.now - now
        if abs(ahead) <= CLOCK_MAX:
            return ""
        side, when = ("ahead of", "early") if ahead > 0 else ("behind", "late")
        return f"its clock is {format_duration(abs(ahead))} {side} this computer's, so it would end so much too {when}"


def wait_boot(seconds: float) -> list[str]:
    """Wait up to `seconds` until cloud-init is through; prints `Boot`."""
    return program("boot", f"{seconds:.3f}", "/run/cloud-init")


def timer() -> list[str]:
    """Whether the dead-man timer is armed; prints `Timer`."""
    return program("timer", layout.DEADMAN_TIMER, layout.STATE)


def facts() -> list[str]:
    """What the machine is; prints `Facts`."""
    return program("facts", layout.STATE)


def has_agent(sha256: str) -> list[str]:
    """Exits 0 if the agent with this content is there."""
    return ["test", "-e", f"{layout.agent_directory(sha256)}/main.py"]


def install_agent(sha256: str) -> list[str]:
    """Check the tar at `layout.agent_archive` and unpack it, once."""
    pushed, target = layout.agent_archive(sha256), layout.agent_directory(sha256)
    return program("install", pushed, sha256, target, root=True)


def has_uv(sha256: str) -> list[str]:
    """Exits 0 if the program from the tar with this content is there."""
    return ["test", "-x", layout.uv_path(sha256)]


def install_uv(sha256: str) -> list[str]:
    """Check the tar at `layout.uv_incoming` and unpack the one file `uv` in it, once."""
    return program("install", layout.uv_incoming(sha256), sha256, layout.uv_directory(sha256), root=True)


def start_agent() -> list[str]:
    """Install the agent's unit from standard input and start it; one that runs with this very unit is left alone."""
    return program("agent_unit", layout.AGENT_SERVICE, layout.UNITS, root=True)


def restart_agent() -> list[str]:
    """Stop the agent, which gets its time to flush, and start it again with the configuration that is there now."""
    return [*SUDO, "systemctl", "restart", layout.AGENT_SERVICE]


def stop_agent() -> list[str]:
    """Stop the agent, which gets its time to flush. A machine without one is fine."""
    return [*SUDO, "systemctl", "stop", layout.AGENT_SERVICE]


def agent_state() -> list[str]:
    """Prints the state of the agent's unit: `active`, `activating`, `inactive` (drained, or never there), `failed`."""
    return ["systemctl", "show", "--property=ActiveState", "--value", layout.AGENT_SERVICE]


def host_key() -> list[str]:
    """Prints the public host key in force."""
    return [*SUDO, "cat", f"{layout.HOST_KEY}.pub"]


def prepare_host_key() -> list[str]:
    """Make the next host key on the machine, once; prints its public half (`read_host_key`)."""
    return program("host_key", "prepare", layout.HOST_KEY, root=True)


def activate_host_key() -> list[str]:
    """Put the next host key in force, for connections from now on; prints its public half (`read_host_key`)."""
    return program("host_key", "activate", layout.HOST_KEY, root=True)


def power_off() -> list[str]:
    """Power the machine off; returns as soon as it began."""
    return [*SUDO, "systemctl", "poweroff", "--no-block"]


def read_file(path: str) -> list[str]:
    """Prints a file that only root may read."""
    return [*SUDO, "cat", "--", path]


def journal_tail(lines: int) -> list[str]:
    """Prints the last lines of the agent, the dead-man timer and cloud-init, for a report of what went wrong."""
    names = (layout.AGENT_SERVICE, layout.DEADMAN_SERVICE, "cloud-init.service", "cloud-final.service")
    selection = [word for name in names for word in ("--unit", name)]
    return [*SUDO, "journalctl", "--no-pager", "--quiet", "--output=short-iso", f"--lines={lines}", *selection]


def read_facts(done: Completed) -> Facts:
    """The output of `facts`. Raises Unreachable if the machine could not tell."""
    return Facts(**answer(done, "facts"))


def read_boot(done: Completed) -> Boot:
    """The output of `wait_boot`. Raises Unreachable if the machine could not tell."""
    document = answer(done, "boot")
    return Boot(**{**document, "errors": tuple(document["errors"])})


def read_timer(done: Completed) -> Timer:
    """The output of `timer`. Raises Unreachable if the machine could not tell."""
    return Timer(**answer(done, "timer"))


def read_host_key(done: Completed) -> str:
    """The output of `prepare_host_key` and `activate_host_key`."""
    return str(answer(done, "host_key")["public"])


def succeeded(done: Completed, what: str) -> Completed:
    """`done` itself. Raises Unreachable, with the last line the command wrote, if its exit code is not 0."""
    if done.exit_code != 0:
        lines = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
        raise Unreachable(
            f"cannot {what} on the machine: {(lines or [f'exit code {done.exit_code}'])[-1][:500]}",
            hint="the machine needs systemd, sudo without a password and /usr/bin/python3",
        )
    return done


def answer(done: Completed, name: str) -> Mapping[str, Any]:
    """The JSON object that a program printed. Raises Unreachable if it failed, or printed none."""
    succeeded(done, f"run the program `{name}`")
    try:
        document = json.loads(done.stdout)
    except ValueError as error:
        raise Unreachable(f"the program `{name}` printed no JSON on the machine") from error
    if not isinstance(document, dict):
        raise Unreachable(f"the program `{name}` printed no JSON object on the machine")
    return document


def program(name: str, *arguments: str, root: bool = False) -> list[str]:
    """The command that runs a program of this package."""
    return [*(SUDO if root else ()), layout.PYTHON, "-I", "-c", program_text(name), *arguments]


@cache
def program_text(name: str) -> str:
    """The source of a program of this package."""
    return files(__package__).joinpath("programs", f"{name}.py").read_text(encoding="utf-8")
