"""Telling systemd how a service is, by its own protocol: datagrams to a socket that it names. Nothing else needed."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

from vmrun.core.clock import Clock

log = logging.getLogger(__name__)


class Notifier:
    """Says READY, STOPPING, STATUS and WATCHDOG to whoever started this process; to nobody if that is not systemd."""

    def __init__(self, environ: Mapping[str, str], clock: Clock, pid: int | None = None) -> None:
        name = environ.get("NOTIFY_SOCKET", "")
        #: An `@` stands for the zero byte of a socket without a file.
        self._address = "\0" + name[1:] if name.startswith("@") else name
        self._clock = clock
        self._every = _interval(environ, os.getpid() if pid is None else pid)
        self._last = float("-inf")

    def ready(self) -> None:
        """It is at work."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """A line for `systemctl status`."""
        self._send("STATUS=" + " ".join(text.split()))

    def stopping(self) -> None:
        """It is about to end."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """It is not stuck; said twice in the time after which systemd would believe so."""
        now = self._clock.monotonic()
        if self._every and now - self._last >= self._every / 2:
            self._last = now
            self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address.startswith(("/", "\0")):
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
                out.settimeout(1.0)
                out.connect(self._address)
                out.sendall(message.encode())
        except OSError as error:
            log.warning("event=not-notified message=%s error=%s", message, error)


def _interval(environ: Mapping[str, str], pid: int) -> float:
    """Seconds between two signs of life that systemd wants; 0 if it wants none of this process."""
    text, meant = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not (text.isascii() and text.isdigit()) or meant not in ("", str(pid)):
        return 0.0
    return int(text) / 1e6
