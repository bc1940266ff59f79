"""Commands on hosts by the OpenSSH client: the user's own keys, agent, `known_hosts` and configuration count as always.

A host whose key is not known is refused by the client itself, and no question is ever asked.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence

from vmrun.core.clouds import Address, CloudError, Fault, Scope
from vmrun.core.hosts import Completed

from .errors import HostError, Trouble, trouble_of
from .hosts import HostName

#: Seconds to connect, and for a command beyond its own time.
DIAL, MARGIN = 10, 15.0
_OPTIONS = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "UpdateHostKeys=no",
    "ForwardAgent=no",
    "ForwardX11=no",
    "ClearAllForwardings=yes",
    "PermitLocalCommand=no",
    "LogLevel=ERROR",
    "RequestTTY=no",
    f"ConnectTimeout={DIAL}",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=3",
)


class OpenSsh:
    """Runs commands; may be used from several threads."""

    def __init__(self, settings: Mapping[str, object], program: str = "ssh") -> None:
        self._program = program
        self._identity = str(settings.get("identity_file") or "")
        self._known_hosts = str(settings.get("known_hosts") or "")
        self._jump = str(settings.get("proxy_jump") or "")

    def run(self, host: HostName, argv: Sequence[str], *, input: bytes = b"", timeout: float = 60.0) -> Completed:
        """Run a command as root and wait for it. Raises HostError when it did not run."""
        root = () if host.user == "root" else ("sudo", "-n")
        command = shlex.join([*root, *argv])
        try:
            done = self._call([*self.argv(host), "--", _target(host), command], input, timeout + DIAL + MARGIN)
        except subprocess.TimeoutExpired as error:
            raise HostError(host, Trouble.unreachable, f"no end of a command after {timeout:.0f} s") from error
        if (trouble := trouble_of(host, done)) is not None:
            raise trouble
        return done

    def address(self, host: HostName, user: str) -> Address:
        """Where the host's name leads, by the SSH configuration, and for which user to log in there."""
        done = self._call([*self.argv(host), "-G", "--", _target(host)], b"", MARGIN)
        lines = (line.partition(" ") for line in done.stdout.decode("utf-8", "replace").splitlines())
        found = {name: value for name, _, value in lines if name in ("hostname", "port")}
        port = found.get("port", "")
        return Address(found.get("hostname") or host.host, int(port) if port.isdigit() else host.port or 22, user)

    def argv(self, host: HostName) -> list[str]:
        """The client with its options, up to the host."""
        argv = [self._program]
        for option in _OPTIONS:
            argv += ["-o", option]
        if self._identity:
            argv += ["-i", self._identity, "-o", "IdentitiesOnly=yes"]
        if self._known_hosts:
            argv += ["-o", f'UserKnownHostsFile="{self._known_hosts}"', "-o", "GlobalKnownHostsFile=/dev/null"]
        if self._jump:
            argv += ["-J", self._jump]
        return [*argv, "-p", str(host.port)] if host.port else argv

    def _call(self, argv: list[str], input: bytes, timeout: float) -> Completed:
        try:
            done = subprocess.run(argv, input=input, capture_output=True, timeout=timeout, check=False)
        except OSError as error:
            raise CloudError(
                f"the SSH client cannot be run: {error.strerror or error}",
                fault=Fault.config,
                scope=Scope.cloud,
                hint="install OpenSSH's client",
            ) from error
        return Completed(done.returncode, done.stdout, done.stderr)


def _target(host: HostName) -> str:
    return f"{host.user}@{host.host}" if host.user else host.host
