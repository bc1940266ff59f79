"""A machine that has an owner: what it is told instead of user data, and the commands that borrow it and clean it.

The document does what user data does to a fresh machine, with two differences: the dead-man timer cleans the machine
instead of powering it off, and the machine keeps its own host key.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from vmrun.core.errors import Unreachable
from vmrun.core.hosts import Completed

from . import layout, units
from .commands import answer, program, program_text

#: Seconds for the cleaning beyond the agent's time to flush: processes die, files go.
CLEANING = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BorrowSeed:
    """What differs between the VMs that borrow a machine; times as in `user_data.Seed`."""

    vm: str
    owner: str
    name: str
    hard_deadline: float
    client_public_key: str
    boot_grace: float = 900.0
    poll: float = 30.0
    flush_grace: float = 60.0


@dataclass(frozen=True, slots=True)
class Marker:
    """Who has a machine, as it says itself."""

    vm: str
    owner: str
    name: str
    hard_deadline: int
    #: Since when, in seconds since the epoch on the machine's clock.
    at: int
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Borrowed:
    """How a machine answered the wish to borrow it: exactly one of these is told."""

    #: Its public host key: it is borrowed.
    host_key: str = ""
    #: Who has it.
    holder: Marker | None = None
    #: What is in the way.
    refused: str = ""
    #: The machine's time, in seconds since the epoch; told with the holder.
    now: int = 0


def borrow_data(seed: BorrowSeed) -> str:
    """The document for the program `borrow`: equal for equal seeds."""
    deadline = math.floor(seed.hard_deadline)
    service = units.deadman_service(flush_grace=seed.flush_grace, borrowed=True)
    return json.dumps(
        {
            "marker": {"vm": seed.vm, "owner": seed.owner, "name": seed.name, "hard_deadline": deadline},
            "hard_deadline": deadline,
            "boot_grace": units.whole_seconds(seed.boot_grace),
            "files": [
                [layout.CLEAN_SCRIPT, "755", program_text("clean")],
                [layout.DEADMAN_SCRIPT, "755", units.deadman_script(borrowed_by=seed.vm)],
                [f"{layout.UNITS}/{layout.DEADMAN_SERVICE}", "644", service],
                [f"{layout.UNITS}/{layout.DEADMAN_TIMER}", "644", units.deadman_timer(poll=seed.poll)],
            ],
            "users": {
                layout.LOGIN_USER: {"shell": "/bin/bash", "key": seed.client_public_key.strip()},
                layout.JOB_USER: {"shell": "/usr/sbin/nologin"},
            },
            "directories": [layout.AGENTS, layout.UVS, layout.WORK],
        },
        indent=1,
    )


def tagged(data: str, tags: Mapping[str, str]) -> str:
    """The document with tags for the marker. Raises ValueError for what is no such document."""
    found = json.loads(data)
    try:
        return json.dumps({**found, "marker": {**found["marker"], "tags": dict(tags)}}, indent=1)
    except (KeyError, TypeError) as error:
        raise ValueError("there is no marker in it") from error


def boot_grace(data: str) -> float:
    """Seconds within which the VM of a document must be ready. Raises ValueError for what is no such document."""
    found = json.loads(data)
    try:
        return float(found["boot_grace"])
    except (KeyError, TypeError) as error:
        raise ValueError("there is no boot grace in it") from error


def borrow() -> list[str]:
    """Borrow the machine by the document on standard input, as root; prints `Borrowed`."""
    return program("borrow")


def clean(vm: str) -> list[str]:
    """Take away all that this VM brought, as root; prints whether it was its to clean (`read_cleaned`)."""
    return program("clean", vm)


def borrower() -> list[str]:
    """Who has the machine; prints a `Marker` or nothing (`read_borrower`)."""
    return program("borrower", layout.BORROWED)


def facts() -> list[str]:
    """What the machine is; prints `commands.Facts`. It is asked before there is any directory of vmrun's."""
    return program("facts", "/var")


def end_now() -> tuple[str, ...]:
    """What the agent runs to end its VM: the lease is over, and the timer's judge sees it at once."""
    judge = f"echo 0 > {layout.LEASE} && systemctl start --no-block {layout.DEADMAN_SERVICE}"
    return ("/bin/sh", "-c", judge)


def read_borrowed(done: Completed) -> Borrowed:
    """The output of `borrow`. Raises Unreachable if the machine could not tell."""
    found = answer(done, "borrow")
    holder = found.get("holder")
    return Borrowed(
        host_key=str(found.get("host_key", "")),
        holder=None if holder is None else _marker(holder),
        refused=str(found.get("refused", "")),
        now=int(found.get("now", 0)),
    )


def read_cleaned(done: Completed) -> bool:
    """The output of `clean`: False when another VM has the machine by now. Raises Unreachable if it failed."""
    return bool(answer(done, "clean")["cleaned"])


def read_borrower(done: Completed) -> Marker | None:
    """The output of `borrower`. Raises Unreachable if the machine could not tell."""
    found = answer(done, "borrower")["marker"]
    return None if found is None else _marker(found)


def _marker(found: object) -> Marker:
    try:
        if not isinstance(found, dict):
            raise TypeError
        vm, owner, name = (str(found[key]) for key in ("vm", "owner", "name"))
        tags = {str(key): str(value) for key, value in dict(found.get("tags") or {}).items()}
        return Marker(vm, owner, name, int(found["hard_deadline"]), int(found["at"]), tags)
    except (KeyError, TypeError, ValueError) as error:
        raise Unreachable(
            f"the machine says of its borrower {str(found)[:200]!r}",
            hint=f"{layout.BORROWED} on the machine was not written by vmrun, or is damaged: see what is there",
        ) from error
