"""A machine over SSH: host key pinned, every wait bounded, nothing interpreted by a shell.

The SSH library loads at the first connection, not before.
"""

from __future__ import annotations

import hashlib
import shlex
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from vmrun.core.clock import Clock
from vmrun.core.clouds import Address
from vmrun.core.errors import Unreachable
from vmrun.core.hosts import Completed

from .jump import Jump, jump_command
from .ssh_channel import CommandTimeout, TooMuchOutput, exchange
from .ssh_connection import HostKeyMismatch, Login, LoginRefused, SshLimits, open_connection

if TYPE_CHECKING:
    import paramiko

__all__ = [
    "CommandTimeout",
    "HostKeyMismatch",
    "Login",
    "LoginRefused",
    "SshHost",
    "SshLimits",
    "TooMuchOutput",
    "open_shell_argv",
]

#: How a login user does what only root may; empty for a login as root.
SUDO = ("sudo", "-n")
_PYTHON = "/usr/bin/python3"
#: Bytes of one block of an upload.
_BLOCK = 1024 * 1024
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0


class SshHost:
    """One machine over SSH; implements `core.hosts.Host`.

    It connects at first use, and again after a connection was lost; a command is never sent twice by itself.
    May be used from several threads.
    """

    def __init__(
        self, login: Login, clock: Clock, *, limits: SshLimits | None = None, become: Sequence[str] = SUDO
    ) -> None:
        self._login = login
        self._clock = clock
        self._limits = limits or SshLimits()
        self._become = tuple(become)
        self._transport: paramiko.Transport | None = None
        self._lock = threading.Lock()
        #: Counts `close`, so that one that waits in `connect` gives up.
        self._closings = 0

    def connect(self, *, timeout: float = 300.0, note: Callable[[str], None] | None = None) -> None:
        """Connect, trying again for `timeout` seconds over all that can be wrong while a machine boots.

        `note` is told why it still waits. Raises HostKeyMismatch at once, LoginRefused or Unreachable in the end.
        """
        with self._lock:
            if self._transport is None or not self._transport.is_active():
                self._transport = self._insist(timeout, note or _ignore)

    def run(self, argv: Sequence[str], *, input: bytes = b"", timeout: float = 60.0) -> Completed:
        """Run a command as the login user and wait for it; arguments reach it as they are.

        The exit code is -1 if a signal ended it. Raises CommandTimeout, TooMuchOutput or Unreachable.
        """
        with exchange(self._connected(), shlex.join(argv), _name(argv), self._clock) as command:
            command.feed(input)
            return command.finish(timeout=timeout, most=self._limits.output_bytes)

    def put(self, path: str, chunks: Iterable[bytes], *, mode: int = 0o600) -> None:
        """Write a file as root, whole or not at all, making its directories (0700).

        It goes through a fixed program on the machine, which renames only what arrived whole, by length and SHA-256.
        """
        argv = [*self._become, _PYTHON, "-I", "-c", _writer(), path, f"{mode:o}"]
        limits = self._limits
        with exchange(self._connected(), shlex.join(argv), f"the upload of {path}", self._clock) as command:
            command.upload(_framed(chunks), stall=limits.stall, timeout=limits.upload)
            done = command.finish(timeout=limits.stall, most=limits.output_bytes)
        if done.exit_code != 0:
            last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or [f"exit {done.exit_code}"]
            raise Unreachable(
                f"cannot write {path} on the machine: {last[0][:500]}",
                hint="the login user needs sudo without a password, and the machine needs /usr/bin/python3",
            )

    def close(self) -> None:
        """Let go of the connection, and of the wait for one; closing twice is fine. The next use connects again."""
        self._closings += 1
        with self._lock:
            if self._transport is not None:
                self._transport.close()
                self._transport = None

    def _connected(self) -> paramiko.Transport:
        self.connect(timeout=self._limits.reconnect)
        transport = self._transport
        if transport is None:
            raise Unreachable("the connection was closed by another thread")
        return transport

    def _insist(self, timeout: float, note: Callable[[str], None]) -> paramiko.Transport:
        start, closings = self._clock.monotonic(), self._closings
        pause, first_refusal = _FIRST_PAUSE, None
        while True:
            if self._closings != closings:
                raise Unreachable("the connection was closed while it was being made")
            try:
                return open_connection(self._login, self._limits)
            except HostKeyMismatch:
                raise
            except LoginRefused as error:
                trouble: Unreachable = error
                first_refusal = self._clock.monotonic() if first_refusal is None else first_refusal
            except Unreachable as error:
                trouble, first_refusal = error, None
            now = self._clock.monotonic()
            if first_refusal is not None and now - first_refusal + pause > self._limits.boot:
                raise trouble
            if now - start + pause > timeout:
                raise _gave_up(trouble, timeout) from trouble
            note(trouble.message)
            self._clock.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)


def open_shell_argv(address: Address, key_file: Path, known_hosts_file: Path, jump: Jump | None = None) -> list[str]:
    """The OpenSSH client's argument list for a person's session: this key, these host keys, no configuration file."""
    options = [
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "StrictHostKeyChecking=yes",
        f"UserKnownHostsFile={_quoted(known_hosts_file)}",
        "GlobalKnownHostsFile=/dev/null",
        "UpdateHostKeys=no",
        "HostKeyAlgorithms=ssh-ed25519",
        "PasswordAuthentication=no",
        "KbdInteractiveAuthentication=no",
        "ForwardAgent=no",
        "ForwardX11=no",
        "ConnectTimeout=15",
        "ServerAliveInterval=15",
    ]
    argv = ["ssh", "-F", "none", "-p", str(address.port), "-i", str(key_file).replace("%", "%%")]
    options += [f"ProxyCommand={jump_command(jump)}"] if jump is not None else []
    for option in options:
        argv += ["-o", option]
    return [*argv, "--", f"{address.user}@{address.host}"]


def _quoted(path: Path) -> str:
    """A path as the value of an option: in quotes for its spaces, its percent signs not meant as tokens."""
    return '"' + str(path).replace("%", "%%") + '"'


def _framed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """What `writer.py` reads: blocks with their lengths, an empty block, the SHA-256 of all."""
    digest = hashlib.sha256()
    for chunk in chunks:
        view = memoryview(chunk).cast("B")
        for start in range(0, len(view), _BLOCK):
            block = bytes(view[start : start + _BLOCK])
            digest.update(block)
            yield len(block).to_bytes(4, "big") + block
    yield bytes(4) + digest.digest()


@cache
def _writer() -> str:
    return files(__package__).joinpath("writer.py").read_text(encoding="utf-8")


def _name(argv: Sequence[str]) -> str:
    """How a command is called in messages: its program, and nothing of its arguments."""
    words = [word for word in argv if word not in SUDO]
    return words[0].rsplit("/", 1)[-1] if words else "a command"


def _gave_up(trouble: Unreachable, timeout: float) -> Unreachable:
    return Unreachable(
        f"no SSH after {timeout:.0f} s: {trouble.message}",
        hint="see that port 22 of the VM is open to this computer (`vmrun doctor` looks at the rule for it); "
        "`ssh_timeout` in vmrun.toml is how long it is tried",
    )


def _ignore(_: str) -> None:
    pass
