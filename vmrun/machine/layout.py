"""Where things are on a VM: paths, units and users, in one place."""

from __future__ import annotations

import re
from typing import Final

from vmrun.core.errors import UsageError

#: State of the machine; survives a reboot. Owned by root, readable by all, but for what is secret.
STATE: Final = "/var/lib/vmrun"
#: Until when the machine may live unless renewed: seconds since the epoch, decimal. The agent replaces it by rename.
LEASE: Final = f"{STATE}/lease"
#: Until when the machine may live at all: seconds since the epoch, decimal.
HARD_DEADLINE: Final = f"{STATE}/hard_deadline"
#: Why the dead-man timer ended the machine; written just before.
WHY: Final = f"{STATE}/why"
#: Optional program by which the machine deletes itself at its cloud, run before the power-off.
SELF_DELETE: Final = f"{STATE}/self-delete"
#: Which VM has a borrowed machine, as JSON.
BORROWED: Final = f"{STATE}/borrowed.json"
#: The agent's configuration (0600).
AGENT_CONFIG: Final = f"{STATE}/agent.json"
#: Where jobs run.
WORK: Final = f"{STATE}/work"
#: Pushed archives before they are checked and unpacked (0700).
INCOMING: Final = f"{STATE}/incoming"
#: Credentials: on tmpfs (0600), so that they do not outlive a power cycle.
SECRETS: Final = "/run/vmrun/secrets.json"

#: Programs that were pushed: readable by all, writable by root only.
PROGRAMS: Final = "/opt/vmrun"
AGENTS: Final = f"{PROGRAMS}/agents"
UVS: Final = f"{PROGRAMS}/uv"

UNITS: Final = "/etc/systemd/system"
DEADMAN_SCRIPT: Final = "/usr/local/sbin/vmrun-deadman"
#: Takes away all that vmrun brought to a borrowed machine.
CLEAN_SCRIPT: Final = "/usr/local/sbin/vmrun-clean"
DEADMAN_TIMER: Final = "vmrun-deadman.timer"
DEADMAN_SERVICE: Final = "vmrun-deadman.service"
AGENT_SERVICE: Final = "vmrun-agent.service"

#: Logs in over SSH, by key only, and may do everything through sudo.
LOGIN_USER: Final = "vmrun"
#: Runs the user's code: no login, no privileges.
JOB_USER: Final = "vmjob"

SUDOERS: Final = f"/etc/sudoers.d/{LOGIN_USER}"

HOST_KEY: Final = "/etc/ssh/ssh_host_ed25519_key"
#: The system's own interpreter: runs the agent and the commands of bring-up, never a job.
PYTHON: Final = "/usr/bin/python3"

_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_sha256(text: str) -> str:
    """`text` itself, if it is a SHA-256 in hexadecimal; else UsageError, before it becomes part of a path."""
    if _SHA256.fullmatch(text) is None:
        raise UsageError(f"{text[:80]!r} is not a SHA-256", hint="64 characters 0-9 and a-f name what is pushed")
    return text


def agent_directory(sha256: str) -> str:
    """Where the agent with this content is unpacked: `main.py`, `app/` and `lib/`."""
    return f"{AGENTS}/{check_sha256(sha256)}"


def agent_archive(sha256: str) -> str:
    """Where the agent's tar is put before it is checked and unpacked."""
    return f"{INCOMING}/agent-{check_sha256(sha256)}.tar"


def uv_directory(sha256: str) -> str:
    """Where the tar of uv with this content is unpacked."""
    return f"{UVS}/{check_sha256(sha256)}"


def uv_path(sha256: str) -> str:
    """The program uv from the tar with this content."""
    return f"{uv_directory(sha256)}/uv"


def uv_incoming(sha256: str) -> str:
    """Where the tar of uv is put before it is checked and unpacked."""
    return f"{INCOMING}/uv-{check_sha256(sha256)}.tar"
