"""An SSH server on this machine for tests: real sockets, real cryptography, commands as real processes.

It misbehaves on request: late banners, refused logins, connections that break, other host keys.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import paramiko

from vmrun.core.clouds import Address
from vmrun.transport.keys import KeyPair, new_key_pair

#: Seconds that each step of a connection may take: for a computer that stands still for a while.
PATIENCE = 60.0


@dataclass
class Behaviour:
    """What the server does; may be changed while it runs."""

    host_key: KeyPair = field(default_factory=new_key_pair)
    #: Offer this instead of the ed25519 key.
    other_key: paramiko.PKey | None = None
    #: Logins to refuse before any is accepted; -1 refuses all.
    refusals: int = 0
    #: Connections on which no banner ever comes, before any is served.
    silent: int = 0
    #: Connections that are closed at once, before any is served.
    closed: int = 0


def bound() -> socket.socket:
    """A port of one's own at which nobody listens yet: who connects is refused, and no other process is given it."""
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    return made


class Server:
    """Listens on a port of its own, or at a `bound` one, until it is closed."""

    def __init__(
        self, client: KeyPair, behaviour: Behaviour | None = None, *, listener: socket.socket | None = None
    ) -> None:
        self.behaviour = behaviour or Behaviour()
        self.logins: list[str] = []
        self.commands: list[str] = []
        #: Exit codes of the commands whose processes are gone.
        self.ended: list[int] = []
        self.connections = 0
        #: Where channels were led to.
        self.forwarded: list[tuple[str, int]] = []
        self._client = client
        self._listener = listener or bound()
        self._listener.listen()
        self.address = Address("127.0.0.1", self._listener.getsockname()[1], "vmrun")
        self._open: list[paramiko.Transport | socket.socket] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._taking = self._start(self._accept)

    def is_client(self, key: paramiko.PKey) -> bool:
        return key.get_base64() == self._client.public.split()[1]

    def execute(self, channel: paramiko.Channel, command: str) -> None:
        """Run a command with the channel as its input and output."""
        self.commands.append(command)
        self._start(lambda: self._execute(channel, command))

    def forward(self, destination) -> None:
        """Lead the channel that opens next to another address."""
        self.forwarded.append(destination)

        def pump() -> None:
            transport = next(each for each in reversed(self._open) if isinstance(each, paramiko.Transport))
            channel = transport.accept(PATIENCE)
            target = socket.create_connection(destination, timeout=PATIENCE)
            self._open.append(target)
            target.settimeout(None)
            self._start(lambda: _from_socket(target, channel))
            with contextlib.suppress(OSError):
                while data := channel.recv(1 << 16):
                    target.sendall(data)
            target.close()

        self._start(pump)

    def hang_up(self) -> None:
        """Break every connection, without a word."""
        for connection in self._open:
            with contextlib.suppress(OSError, EOFError):
                connection.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        # What was taken last is let go of, too, and what is begun last.
        self._taking.join(PATIENCE)
        self._closed = True
        self.hang_up()
        for process in self._processes:
            _kill(process)
        for thread in self._threads:
            thread.join(10)

    def _start(self, target) -> threading.Thread:
        thread = threading.Thread(target=target, daemon=True)
        thread.start()
        # Not before: whoever closes may be just about to join it.
        self._threads.append(thread)
        return thread

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            if self.behaviour.closed > 0:
                self.behaviour.closed -= 1
                connection.close()
            elif self.behaviour.silent > 0:
                self.behaviour.silent -= 1
            else:
                self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        transport = _Transport(connection)
        transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = PATIENCE
        self._open.append(transport)
        own = paramiko.Ed25519Key.from_private_key(io.StringIO(self.behaviour.host_key.private))
        transport.add_server_key(self.behaviour.other_key or own)
        with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
            transport.start_server(event=threading.Event(), server=_Rules(self))

    def _execute(self, channel: paramiko.Channel, command: str) -> None:
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {command}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._processes.append(process)
        if self._closed:
            _kill(process)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        pumps = [
            threading.Thread(target=_from, args=(process.stdout, channel.sendall), daemon=True),
            threading.Thread(target=_from, args=(process.stderr, channel.sendall_stderr), daemon=True),
        ]
        feeder = threading.Thread(target=_into, args=(channel, process.stdin), daemon=True)
        for thread in (*pumps, feeder):
            thread.start()
        for thread in pumps:
            thread.join()
        code = process.wait()
        self.ended.append(code)
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            if code >= 0:
                channel.send_exit_status(code)
            # What the command left unread is dropped.
            channel.close()
        feeder.join(10)


class _Rules(paramiko.ServerInterface):
    def __init__(self, server: Server) -> None:
        self._server = server

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        server = self._server
        server.logins.append(username)
        if server.behaviour.refusals:
            server.behaviour.refusals -= 1
            return paramiko.AUTH_FAILED
        return paramiko.AUTH_SUCCESSFUL if server.is_client(key) else paramiko.AUTH_FAILED

    def check_channel_direct_tcpip_request(self, chanid: int, origin, destination) -> int:
        self._server.forward(destination)
        return paramiko.OPEN_SUCCEEDED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        transport = channel.get_transport()
        assert isinstance(transport, _Transport)
        transport.granted.append(lambda: self._server.execute(channel, command.decode()))
        return True


class _Transport(paramiko.Transport):
    """Begins a command when the client was told that it will: one that ends before would close the channel first."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection)
        #: What to do after the next answer. Only the connection's own thread grants anything, and answers.
        self.granted: list[Callable[[], None]] = []

    def _send_user_message(self, data: paramiko.Message) -> None:
        super()._send_user_message(data)
        if threading.current_thread() is self:
            begin, self.granted = self.granted, []
            for act in begin:
                act()


def _kill(process: subprocess.Popen[bytes]) -> None:
    # One that is gone may have left its number to somebody else.
    with contextlib.suppress(ProcessLookupError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def _from(stream, send) -> None:
    with stream:
        while data := os.read(stream.fileno(), 1 << 16):
            try:
                send(data)
            except (OSError, EOFError):  # paramiko says the second when the connection is gone
                return


def _from_socket(target: socket.socket, channel: paramiko.Channel) -> None:
    with contextlib.suppress(OSError, EOFError):
        while data := target.recv(1 << 16):
            channel.sendall(data)
    with contextlib.suppress(OSError, EOFError):
        channel.close()


def _into(channel: paramiko.Channel, stream) -> None:
    with contextlib.suppress(OSError):
        while data := channel.recv(1 << 16):
            os.write(stream.fileno(), data)
    with contextlib.suppress(OSError):
        stream.close()
