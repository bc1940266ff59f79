"""One command on an open SSH connection: its input, its output, its end, each with a limit."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, ClassVar

from vmrun.core.clock import Clock
from vmrun.core.errors import Unreachable
from vmrun.core.hosts import Completed

if TYPE_CHECKING:
    import paramiko

#: Bytes of one read.
_BLOCK = 256 * 1024
#: Input up to this many bytes fits the window of a fresh channel, so that sending it cannot block.
_INLINE = 32 * 1024
#: Seconds between looks at the clock while waiting for output.
_LOOK = 1.0


class CommandTimeout(Unreachable):
    """A command on a machine did not end in its time. It may still run there."""

    code: ClassVar[str] = "command-timeout"


class TooMuchOutput(Unreachable):
    """A command on a machine printed more than it may."""

    code: ClassVar[str] = "too-much-output"
    retryable: ClassVar[bool] = False


class Exchange:
    """A command that runs: give it input, then wait for what it leaves behind."""

    def __init__(self, channel: paramiko.Channel, name: str, clock: Clock) -> None:
        self._channel = channel
        self._name = name
        self._clock = clock

    def feed(self, data: bytes) -> None:
        """Send input and its end, without waiting for the command to read it."""
        if len(data) <= _INLINE:
            self._feed(data)
        else:
            threading.Thread(target=self._feed, args=(data,), name="vmrun-ssh-input", daemon=True).start()

    def upload(self, blocks: Iterable[bytes], *, stall: float, timeout: float) -> None:
        """Send input as the command takes it, and its end. A command that ended early is not an error here."""
        self._channel.settimeout(stall)
        give_up = self._clock.monotonic() + timeout
        for block in blocks:
            if not self._send(block, stall):
                return
            if self._clock.monotonic() > give_up:
                raise CommandTimeout(f"an upload took longer than {timeout:.0f} s")
        self._end_input()

    def finish(self, *, timeout: float, most: int) -> Completed:
        """Wait for the end; `most` bytes of output are taken. The exit code is -1 if a signal ended the command."""
        give_up = self._clock.monotonic() + timeout
        stdout, stderr = self._collect(give_up, most)
        left = give_up - self._clock.monotonic()
        if not self._channel.status_event.wait(max(left, 0.001)):
            raise self._late()
        code = self._channel.exit_status
        if code == -1 and _is_broken(self._channel.get_transport()):
            raise Unreachable(f"the connection broke while {self._name} ran")
        return Completed(code, stdout, stderr)

    def _feed(self, data: bytes) -> None:
        # For as long as it takes: what ends the wait is the end of the command, or `finish` giving up on it.
        self._channel.settimeout(None)
        if self._send(data, math.inf):
            self._end_input()

    def _send(self, data: bytes, stall: float) -> bool:
        """Whether it went out; if not, the command has ended or the connection broke, and `finish` tells which."""
        try:
            self._channel.sendall(data)
        except TimeoutError as error:
            raise Unreachable(f"the machine took nothing of an upload for {stall:.0f} s") from error
        except _broken():
            return False
        return True

    def _end_input(self) -> None:
        with suppress(*_broken()):
            self._channel.shutdown_write()

    def _collect(self, give_up: float, most: int) -> tuple[bytes, bytes]:
        channel = self._channel
        stdout, stderr = bytearray(), bytearray()
        # Not `select` on the channel: the pipe that the library makes for it is closed while its other thread may
        # still write to it, and that byte then goes to whatever else has the descriptor by then.
        arrived = threading.Event()
        channel.in_buffer.set_event(arrived)
        channel.in_stderr_buffer.set_event(arrived)
        while True:
            # In this order: what came before the end is taken after the end was seen.
            ended = channel.eof_received or channel.closed
            ready = channel.recv_ready(), channel.recv_stderr_ready()
            if ready[0]:
                stdout += channel.recv(_BLOCK)
            if ready[1]:
                stderr += channel.recv_stderr(_BLOCK)
            if len(stdout) + len(stderr) > most:
                raise TooMuchOutput(f"{self._name} printed more than {most} bytes on the machine")
            if ended and not any(ready):
                return bytes(stdout), bytes(stderr)
            left = give_up - self._clock.monotonic()
            if left <= 0:
                raise self._late()
            if not any(ready):
                arrived.wait(min(left, _LOOK))

    def _late(self) -> CommandTimeout:
        return CommandTimeout(f"{self._name} did not end in its time on the machine")


@contextmanager
def exchange(transport: paramiko.Transport, command: str, name: str, clock: Clock) -> Iterator[Exchange]:
    """Start `command` (quoted already) and close its channel in the end. Unreachable if it cannot be started."""
    try:
        channel = transport.open_session(timeout=transport.channel_timeout)
        channel.settimeout(transport.channel_timeout)
        channel.exec_command(command)
    except _broken() as error:
        if isinstance(error, OSError | EOFError):
            # The library may not know yet that the connection is gone; the next command needs a new one.
            transport.close()
        raise Unreachable(f"cannot start {name} on the machine: {error or type(error).__name__}") from error
    try:
        yield Exchange(channel, name, clock)
    finally:
        with suppress(*_broken()):
            channel.close()


def _is_broken(transport: paramiko.Transport) -> bool:
    """Whether a channel closed because its connection did, rather than its command; asked of the machine."""
    import paramiko

    # The library closes channels before it says that the connection is gone: its word is worth nothing right now.
    try:
        transport.open_session(timeout=transport.channel_timeout).close()
    except paramiko.ChannelException:
        return False
    except _broken():
        transport.close()
        return True
    return False


def _broken() -> tuple[type[Exception], ...]:
    """What the library raises when a channel or its connection is gone."""
    import paramiko

    return (OSError, EOFError, paramiko.SSHException)
