"""Hosts that somebody has already: Docker machines whose owner logs in by a key and may use sudo."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path

from tests.docker.machines import BOOT, Machines, until
from tests.support.shell import Shell
from vmrun.core.clouds import Address
from vmrun.transport.keys import KeyPair, known_hosts_line, new_key_pair, write_private_key

OWNER = "owner"
BOOTED = ("running", "degraded")
SUDO = "ALL=(ALL) NOPASSWD:ALL"


@dataclass(frozen=True)
class OwnHost:
    """One host, as its owner sees it."""

    container: str
    address: str
    host_key: str

    @property
    def name(self) -> str:
        """As the configuration names it."""
        return f"{OWNER}@{self.address}"

    def inside(self, *argv: str) -> str:
        """What a command prints that runs as root on it, past SSH."""
        done = subprocess.run(
            ["docker", "exec", self.container, *argv], capture_output=True, text=True, check=False, timeout=240
        )
        return done.stdout

    def inventory(self) -> dict[str, list[str]]:
        """All that a job could leave behind: users, units, timers, files, processes, rules."""
        find = "find / -xdev \\( -path /proc -o -path /sys -o -path /var/log -o -path /var/cache \\) -prune -o -print"
        # The owner's number is 1000; those that come for a job have larger ones.
        scratch = "find / /tmp /var/tmp /dev/shm /run -xdev \\( -uid +1000 -o -name '*vmrun*' \\) 2>/dev/null"
        # Services of systemd that somebody asked something, and that end after half a minute of rest.
        passing = "systemd-(hostnam|timedat|locale|tmpfile)"
        commands = {
            "users": "cut -d: -f1 /etc/passwd",
            "groups": "cut -d: -f1 /etc/group",
            "units": "systemctl list-unit-files --no-legend --plain | cut -d' ' -f1,2",
            "loaded": "systemctl list-units --all --no-legend --plain 'vmrun*' | cut -d' ' -f1",
            "files": f"{find} | grep -v -e '^/var/lib/systemd/' -e '^/root/' -e '^/var/lib/private'",
            "scratch": scratch,
            "processes": f"ps -e -o user:20=,comm= | sort -u | grep -v -E 'sshd|sd-pam| (ps|sort|grep|sh)$|{passing}'",
            "rules": "ip rule; ip -6 rule",
            "shared memory": "ipcs -m",
        }
        return {what: sorted(self.inside("sh", "-c", command).splitlines()) for what, command in commands.items()}

    def assert_as(self, before: dict[str, list[str]], seconds: float = 120.0) -> None:
        """It comes to hold just what it held `before`.

        What cleans a host takes its own units out of systemd after the last file, so the host may look clean earlier.
        """
        give_up = time.monotonic() + seconds
        while True:
            now = self.inventory()
            difference = {
                what: {
                    "gone": sorted(set(before[what]) - set(now[what])),
                    "new": sorted(set(now[what]) - set(before[what])),
                }
                for what in before
                if now[what] != before[what]
            }
            if not difference:
                return
            assert time.monotonic() < give_up, f"{self.address} is not as it was after {seconds} s: {difference}"

    def boot_id(self) -> str:
        """Another one after every boot of the container."""
        return self.inside("stat", "-c", "%Y", "/proc/1").strip()


class OwnHosts:
    """Makes such hosts; they are removed with the machines."""

    def __init__(self, machines: Machines, folder: Path) -> None:
        self._machines = machines
        self.folder = folder
        self.key: KeyPair = new_key_pair("owner")
        self.identity = folder / "owner_key"
        write_private_key(self.identity, self.key.private)
        self.known_hosts = folder / "known_hosts"
        self.known_hosts.touch()

    def boot(self, *, sudo: str = SUDO) -> OwnHost:
        """A host that answers, its key in `known_hosts`."""
        plan = self._machines.plan()
        user: dict[str, object] = {
            "name": OWNER,
            "shell": "/bin/bash",
            "lock_passwd": True,
            "ssh_authorized_keys": [self.key.public],
        }
        if sudo:
            user["sudo"] = sudo
        config = {
            "users": [user],
            "ssh_deletekeys": True,
            "ssh_keys": {"ed25519_private": plan.host.private, "ed25519_public": plan.host.public + "\n"},
        }
        text = "#cloud-config\n" + json.dumps(config)
        made = self._machines.provisioner.create(replace(plan.spec, user_data=text))
        assert made.address is not None
        self.trust(made.address.host, plan.host.public)
        host = OwnHost(plan.spec.name, made.address.host, plan.host.public)
        until(lambda: "ready" in self.ssh(host, "echo", "ready"), BOOT, f"{host.address} answers")
        until(lambda: "done" in host.inside("cloud-init", "status"), BOOT, "cloud-init is through")
        # cloud-init says so while its own last unit still runs.
        until(lambda: host.inside("systemctl", "is-system-running").strip() in BOOTED, BOOT, "its boot is over")
        return host

    def trust(self, host: str, key: str) -> None:
        """Add a line to `known_hosts`."""
        with self.known_hosts.open("a") as file:
            file.write(known_hosts_line(Address(host), key))

    def ssh(self, host: OwnHost, *argv: str) -> str:
        """What a command prints that its owner runs on it."""
        options = ["-F", "none", "-i", str(self.identity), "-o", "BatchMode=yes", "-o", "ConnectTimeout=60"]
        options += ["-o", f"UserKnownHostsFile={self.known_hosts}", "-o", "StrictHostKeyChecking=yes"]
        done = subprocess.run(
            ["ssh", *options, host.name, "--", *argv], capture_output=True, text=True, check=False, timeout=120
        )
        return done.stdout

    def table(self, *hosts: OwnHost, more: str = "") -> str:
        """The table `[ssh]` of a configuration for these."""
        names = ", ".join(f'"{host.name}"' for host in hosts)
        return (
            f'[ssh]\nhosts = [{names}]\nidentity_file = "{self.identity}"\nknown_hosts = "{self.known_hosts}"\n{more}\n'
        )


def is_clean(host: OwnHost) -> bool:
    """Whether nothing of vmrun is where it usually is."""
    found = host.inside(
        "sh", "-c", "ls -d /var/lib/vmrun /opt/vmrun /usr/local/sbin/vmrun-* /etc/systemd/system/vmrun*"
    )
    return not found and "vmrun" not in host.inside("cat", "/etc/passwd")


def append(shell: Shell, text: str) -> None:
    """Add to the shell's configuration."""
    path = shell.home / "vmrun.toml"
    path.write_text((path.read_text() if path.exists() else "") + "\n" + text)
