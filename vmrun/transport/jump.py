"""A host on the way to machines that have no public address: logged in to as the user's own SSH does, and verified."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmrun.core.clouds import Address
from vmrun.core.errors import ConfigError, Unreachable

if TYPE_CHECKING:
    import paramiko

_JUMP = re.compile(
    r"(?:(?P<user>[A-Za-z0-9._-]+)@)?(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>\d{1,5}))?"
)
_KEY_FILES = ("id_ed25519", "id_ecdsa", "id_rsa")


@dataclass(frozen=True, slots=True)
class Jump:
    """The host, and where this user keeps what proves either to the other."""

    address: Address
    #: `known_hosts` and keys of the user.
    folder: Path


def read_jump(text: str, folder: Path | None = None) -> Jump | None:
    """What `user@host:port` names; None for "". Raises ConfigError for anything else."""
    if not text:
        return None
    found = _JUMP.fullmatch(text)
    if found is None or found["host"].startswith("-") or (found["user"] or "").startswith("-"):
        raise ConfigError(f"proxy_jump: {text[:80]!r} is no host", hint="write it as user@host:port")
    user, host = found["user"] or getpass.getuser(), found["host"].strip("[]")
    return Jump(Address(host, int(found["port"] or 22), user), folder or Path.home() / ".ssh")


def jump_command(jump: Jump) -> str:
    """The value of OpenSSH's ProxyCommand for it: verified by the user's known hosts, nobody is asked."""
    address = jump.address
    argv = ["ssh", "-o", "StrictHostKeyChecking=yes", "-p", str(address.port), "-l", address.user, "-W", "%h:%p"]
    return shlex.join([*argv, "--", address.host])


class ThroughJump:
    """A socket that is a channel of the jump host's connection; closing it ends that connection too."""

    def __init__(self, channel: paramiko.Channel, transport: paramiko.Transport) -> None:
        self._channel = channel
        self._transport = transport

    def close(self) -> None:
        """End both, in whatever state they are."""
        # The other side may be gone already, and then cannot be told.
        with contextlib.suppress(EOFError, OSError):
            self._channel.close()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)


def through(jump: Jump, transport: paramiko.Transport, target: Address, timeout: float) -> ThroughJump:
    """A socket to `target` over a connection to the jump host that is open and not verified yet.

    Closes `transport` when it fails. Raises Unreachable, with the step to take.
    """
    import paramiko

    where = f"the jump host {jump.address.host}"
    try:
        known = _known_keys(jump)
        transport.get_security_options().key_types = tuple(_algorithms(transport, known))
        transport.start_client(timeout=timeout)
        presented = transport.get_remote_server_key()
        if presented.asbytes() != known[presented.get_name()].asbytes():
            raise Unreachable(
                f"{where} presents the host key {presented.fingerprint}, which is not the one in known_hosts",
                hint="find out why it changed before anything else; nothing was sent to it",
            )
        _log_in(jump, transport)
        channel = transport.open_channel("direct-tcpip", (target.host, target.port), ("127.0.0.1", 0), timeout=timeout)
    except Unreachable:
        _end(transport)
        raise
    except (paramiko.SSHException, OSError, EOFError, KeyError) as error:
        _end(transport)
        raise Unreachable(f"{where} does not lead to {target.host}: {error or type(error).__name__}") from error
    except BaseException:
        _end(transport)
        raise
    return ThroughJump(channel, transport)


def _end(transport: paramiko.Transport) -> None:
    transport.close()
    # Of a connection that was not started yet the library leaves the socket open.
    transport.sock.close()


def _known_keys(jump: Jump) -> dict[str, paramiko.PKey]:
    import paramiko

    host, port = jump.address.host, jump.address.port
    hosts = paramiko.HostKeys()
    with contextlib.suppress(OSError):
        hosts.load(str(jump.folder / "known_hosts"))
    found = hosts.lookup(host if port == 22 else f"[{host}]:{port}")
    if not found:
        raise Unreachable(
            f"the host key of the jump host {host} is not known",
            hint=f"log in once by `ssh -p {port} {jump.address.user}@{host}`, and compare its fingerprint",
        )
    return {kind: key for kind in found if (key := found.get(kind)) is not None}


def _algorithms(transport: paramiko.Transport, known: dict[str, paramiko.PKey]) -> list[str]:
    """Only kinds of keys that are known, so that the host cannot offer another kind."""
    offered = transport.get_security_options().key_types
    rsa = "ssh-rsa" in known
    return [kind for kind in offered if kind in known or (rsa and kind.startswith("rsa-sha2-"))]


def _log_in(jump: Jump, transport: paramiko.Transport) -> None:
    import paramiko

    keys: list[paramiko.PKey] = list(paramiko.Agent().get_keys())
    for name in _KEY_FILES:
        path = jump.folder / name
        if os.path.isfile(path):
            # One that has a passphrase is left to the SSH agent.
            with contextlib.suppress(paramiko.SSHException, OSError, ValueError):
                keys.append(paramiko.PKey.from_path(str(path)))
    for key in keys:
        with contextlib.suppress(paramiko.AuthenticationException):
            transport.auth_publickey(jump.address.user, key)
            return
    raise Unreachable(
        f"the jump host {jump.address.host} refuses the login of {jump.address.user}",
        hint=f"see that `ssh {jump.address.user}@{jump.address.host}` works without being asked",
    )
