"""One attempt to open an SSH connection, with each of its waits bounded and the host key compared before all else."""

from __future__ import annotations

import base64
import io
import logging
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, cast

from vmrun.core.clouds import Address
from vmrun.core.errors import Unreachable

from .jump import Jump, through

if TYPE_CHECKING:
    import paramiko

#: The only kind of host key that is asked for: the one that user data installs.
_KEY_TYPE = "ssh-ed25519"
#: Authenticated ciphers first: twice the throughput of the library's own order, and no old ones.
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
_MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512")


class HostKeyMismatch(Unreachable):
    """What answers at the VM's address is not the VM: its host key is another. Nothing was sent to it."""

    code: ClassVar[str] = "host-key-mismatch"
    retryable: ClassVar[bool] = False


class LoginRefused(Unreachable):
    """The machine is the right one and does not let the key in, or not yet."""

    code: ClassVar[str] = "login-refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class SshLimits:
    """How long each step may take, in seconds, and how much a command may print, in bytes."""

    dial: float = 5.0
    #: Version banner and key exchange.
    handshake: float = 20.0
    login: float = 20.0
    channel: float = 20.0
    #: For how long a machine may take nothing of an upload.
    stall: float = 60.0
    upload: float = 1800.0
    #: Between signs of life on an idle connection; three times as long without an answer ends it.
    keepalive: float = 15.0
    #: For how long a refused login can be the boot's fault: the user is not there yet, or may not log in yet.
    boot: float = 90.0
    #: For a connection that was lost.
    reconnect: float = 30.0
    output_bytes: int = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Login:
    """Who logs in where, and which host keys prove that it is the machine."""

    address: Address
    #: Private key in OpenSSH form.
    client_key: str = field(repr=False)
    #: Public keys in OpenSSH form; more than one only while the key is being replaced.
    host_keys: tuple[str, ...]
    #: The host to go through; None: straight there.
    jump: Jump | None = None


def open_connection(login: Login, limits: SshLimits) -> paramiko.Transport:
    """A connection that is logged in. HostKeyMismatch, LoginRefused, or Unreachable for any other trouble."""
    import paramiko

    # Every failure reaches the caller as an exception; the library would print it as well.
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)
    where = f"{login.address.host}:{login.address.port}"
    try:
        transport = paramiko.Transport(_way_to(login, limits))
    except OSError as error:
        raise Unreachable(f"{where} does not answer: {error.strerror or error}") from error
    try:
        _shake_hands(transport, login, limits)
        transport.auth_publickey(login.address.user, _client_key(login))
    except HostKeyMismatch:
        transport.close()
        raise
    except paramiko.AuthenticationException as error:
        transport.close()
        raise LoginRefused(
            f"{where} refuses the login of {login.address.user}: {error}",
            hint="the user data of the VM installs its key; `vmrun logs` may show why it did not",
        ) from error
    except (paramiko.SSHException, OSError, EOFError) as error:
        transport.close()
        raise Unreachable(f"{where} does not speak SSH yet: {error or type(error).__name__}") from error
    except BaseException:
        transport.close()
        raise
    transport.set_keepalive(max(1, round(limits.keepalive)))
    return transport


def _way_to(login: Login, limits: SshLimits) -> socket.socket:
    if login.jump is None:
        return _dial(login.address, limits)
    import paramiko

    try:
        outer = paramiko.Transport(_dial(login.jump.address, limits))
    except OSError as error:
        raise Unreachable(f"the jump host {login.jump.address.host} does not answer: {error}") from error
    outer.banner_timeout = outer.handshake_timeout = limits.handshake
    outer.auth_timeout, outer.channel_timeout = limits.login, limits.channel
    # To the library, whatever has a socket's methods is one.
    return cast(socket.socket, through(login.jump, outer, login.address, limits.handshake))


def _dial(address: Address, limits: SshLimits) -> socket.socket:
    connection = socket.create_connection((address.host, address.port), timeout=limits.dial)
    # Without it each small packet of a command waits for the acknowledgement of the one before.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # A machine that vanished is noticed by what it does not acknowledge.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(limits.keepalive * 3000))
    return connection


def _shake_hands(transport: paramiko.Transport, login: Login, limits: SshLimits) -> None:
    """Key exchange, then the comparison of the host key; no word of the user's goes out before it."""
    transport.banner_timeout = transport.handshake_timeout = limits.handshake
    transport.auth_timeout, transport.channel_timeout = limits.login, limits.channel
    options = transport.get_security_options()
    options.key_types, options.ciphers, options.digests = (_KEY_TYPE,), _CIPHERS, _MACS
    transport.start_client(timeout=limits.handshake)
    presented = transport.get_remote_server_key()
    if presented.get_name() == _KEY_TYPE and presented.asbytes() in {_blob(key) for key in login.host_keys}:
        return
    raise HostKeyMismatch(
        f"{login.address.host}:{login.address.port} presents the host key {presented.fingerprint},"
        " which is not the VM's: another machine answers at this address",
        hint="nothing was sent to it; the VM is given back, `vmrun submit` rents another",
    )


def _blob(public_key: str) -> bytes:
    kind, encoded = public_key.split()[:2]
    if kind != _KEY_TYPE:
        raise Unreachable(f"the pinned host key is {kind[:40]!r}, not {_KEY_TYPE}", hint="pin the ed25519 host key")
    return base64.b64decode(encoded, validate=True)


def _client_key(login: Login) -> paramiko.PKey:
    import paramiko

    return paramiko.Ed25519Key.from_private_key(io.StringIO(login.client_key))
