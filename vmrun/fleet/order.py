"""What a fleet is asked for, and the numbers that bound a machine's life."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vmrun.core.clouds import Need


@dataclass(frozen=True, slots=True)
class Timings:
    """Bounds of one machine, all in seconds."""

    boot_grace: float = 900.0
    lease: float = 1800.0
    heartbeat: float = 15.0
    dead_after: float = 120.0
    flush_grace: float = 60.0
    deadman_poll: float = 30.0
    ssh_timeout: float = 300.0
    #: Between looks of the agent at the journals: at work, at rest.
    poll_min: float = 0.2
    poll_max: float = 2.0


@dataclass(frozen=True, slots=True)
class StoreAccess:
    """How a machine reaches the store."""

    url: str
    options: dict[str, Any] = field(default_factory=dict)
    #: The credentials by the name of their option. Travel to a 0600 file on the machine and nowhere else.
    secrets: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Order:
    """A machine that is wanted."""

    job: str
    on: str
    need: Need
    #: Python `major.minor` of the job; "" if it needs none.
    python: str
    keep_warm: float = 0.0
    max_lifetime: float = 86400.0
    #: Dollars that the job may cost; 0: no limit.
    max_cost: float = 0.0
    #: Seconds that the machine stays for debugging where it could not be made ready.
    keep_on_failure: float = 0.0
    #: Whether a machine will do whose price is not known, so that no limit in dollars can hold on it.
    allow_unknown_price: bool = False
    #: Whether the deployment has a limit in dollars for all that it rents.
    budgeted: bool = False
    timings: Timings = Timings()
    #: Whether the job needs packages, and so uv, on the machine.
    needs_packages: bool = False
    #: Options of package downloads (index, certificates) for the machine.
    index: dict[str, Any] = field(default_factory=dict)
    #: Addresses of package indexes that hold a password: for machines that are this computer, and for no other.
    private_index: dict[str, str] = field(default_factory=dict, repr=False)
    ca_file: str = ""
    #: What the job finds installed, as in the VM's journal; "" for nothing of its own.
    environment: str = ""
    #: The pool that the machine is for, which it joins before it is made; "" for none, and then there is a job.
    pool: str = ""
    #: Seconds since the epoch until which it waits for jobs, whatever they say; 0: as long as they say.
    stay_until: float = 0.0


def secrets_file(store: Mapping[str, str], index: Mapping[str, str]) -> bytes:
    """What stands in a machine's file of secrets: the store's credentials, and variables; b"" if there are none."""
    found = {name: dict(values) for name, values in (("store", store), ("index", index)) if values}
    return json.dumps(found).encode() if found else b""
