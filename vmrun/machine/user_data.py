"""The user data of a VM: a cloud-config whose first action arms the dead-man timer.

It is JSON, which is YAML too: byte-stable for equal input, and nothing in it can be misquoted. The only secret in it
is a host key that serves for the first session and is replaced in it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

from vmrun.core.errors import UsageError

from . import layout, units

#: The smallest limit among the clouds, in bytes (EC2, before base64).
MAX_BYTES = 16 * 1024
_END = "VMRUN-END"
#: Units of common images that take the package lock, or reboot, on their own.
_UNWANTED = ("apt-daily.timer", "apt-daily-upgrade.timer", "apt-news.service", "unattended-upgrades.service")
_SSHD = """\
PermitRootLogin no
PasswordAuthentication no
KbdInteractiveAuthentication no
AllowUsers vmrun
AllowAgentForwarding no
X11Forwarding no
UseDNS no
"""
#: What cloud-init itself writes for `ssh_pwauth`. It is there before, because cloud-init starts the server anew when it
#: has changed something, at the end of a boot, when the first connections are there already.
_SSHD_OF_CLOUD_INIT = "PasswordAuthentication no\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """What differs between VMs, and the times of the dead-man timer in seconds."""

    #: Seconds since the epoch after which the machine must not run: absolute, so that a reboot does not extend it.
    hard_deadline: float
    #: The one key that may log in, in OpenSSH form.
    client_public_key: str
    host_private_key: str = field(repr=False)
    host_public_key: str
    #: How long the machine waits for an agent after its first boot.
    boot_grace: float = 900.0
    #: How often lease and deadline are judged.
    poll: float = 30.0
    #: How long a running agent may flush when the machine ends.
    flush_grace: float = 60.0
    #: A program by which the machine deletes itself at its cloud, where a power-off alone does not.
    self_delete: str = ""


def user_data(seed: Seed) -> str:
    """The cloud-config for `seed`: equal for equal seeds. UsageError if no cloud would take it."""
    # Sorting would move `bootcmd` from its place; the order below is the order of the stages.
    text = "#cloud-config\n" + json.dumps(_document(seed), indent=1) + "\n"
    if len(text) > MAX_BYTES:
        raise UsageError(
            f"the user data of a VM has {len(text)} bytes, more than {MAX_BYTES}",
            hint="make the self-delete program of the driver shorter",
        )
    return text


def _document(seed: Seed) -> dict[str, Any]:
    return {
        "bootcmd": [["/bin/sh", "-c", arm_script(seed)], ["/bin/sh", "-c", _prepare_script()]],
        "package_update": False,
        "package_upgrade": False,
        "package_reboot_if_required": False,
        "write_files": [
            {"path": "/etc/ssh/sshd_config.d/10-vmrun.conf", "content": _SSHD},
            {"path": "/etc/ssh/sshd_config.d/50-cloud-init.conf", "content": _SSHD_OF_CLOUD_INIT},
        ],
        "users": [
            {
                "name": layout.LOGIN_USER,
                "shell": "/bin/bash",
                "lock_passwd": True,
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "ssh_authorized_keys": [seed.client_public_key.strip()],
            },
            {"name": layout.JOB_USER, "shell": "/usr/sbin/nologin", "lock_passwd": True},
        ],
        "disable_root": True,
        "ssh_pwauth": False,
        "ssh_deletekeys": True,
        "ssh_keys": {
            "ed25519_private": seed.host_private_key,
            "ed25519_public": seed.host_public_key.strip() + "\n",
        },
        "ssh": {"emit_keys_to_console": False},
        "no_ssh_fingerprints": True,
    }


def arm_script(seed: Seed) -> str:
    """What arms the dead-man timer at every boot, for any POSIX shell.

    The first lease is counted from the first boot: a lease that is there stays as it is. The timer is started without
    waiting for it, as this runs while the boot itself is still a job of the manager; a machine whose timer cannot be
    started is powered off.
    """
    first_lease = f"echo $(($(date +%s) + {units.whole_seconds(seed.boot_grace)})) | put {layout.LEASE} 644"
    steps = [
        "umask 022",
        'put() { mkdir -p "${1%/*}"; cat > "$1.new" && chmod "$2" "$1.new" && mv -f "$1.new" "$1"; }',
        _put(layout.HARD_DEADLINE, "644", f"{math.floor(seed.hard_deadline)}\n"),
        f"[ -e {layout.LEASE} ] || {first_lease}",
        _put(layout.DEADMAN_SCRIPT, "755", units.deadman_script()),
        _put(f"{layout.UNITS}/{layout.DEADMAN_SERVICE}", "644", units.deadman_service(flush_grace=seed.flush_grace)),
        _put(f"{layout.UNITS}/{layout.DEADMAN_TIMER}", "644", units.deadman_timer(poll=seed.poll)),
    ]
    if seed.self_delete:
        steps.append(_put(layout.SELF_DELETE, "700", seed.self_delete.rstrip("\n") + "\n"))
    steps += [
        f"mkdir -p {layout.UNITS}/sysinit.target.wants",
        f"ln -sf {layout.UNITS}/{layout.DEADMAN_TIMER} {layout.UNITS}/sysinit.target.wants/{layout.DEADMAN_TIMER}",
        f"start() {{ systemctl start --no-block {layout.DEADMAN_TIMER}; }}",
        "start || { systemctl daemon-reload; start; } || systemctl poweroff",
    ]
    return "\n".join(steps) + "\n"


def _put(path: str, mode: str, content: str) -> str:
    if _END in content:
        raise UsageError(f"a file of the user data contains {_END}", hint="leave that word out of it")
    return f"put {path} {mode} <<'{_END}'\n{content}{_END}"


def _prepare_script() -> str:
    """Directories for what is pushed and run, and peace from the image's own package jobs."""
    masks = [f"ln -sf /dev/null {layout.UNITS}/{unit}" for unit in _UNWANTED]
    return "\n".join(
        [
            "umask 022",
            f"mkdir -p {layout.AGENTS} {layout.UVS} {layout.WORK}",
            *masks,
            f"systemctl stop --no-block {' '.join(_UNWANTED)} 2> /dev/null || :",
            "",
        ]
    )
