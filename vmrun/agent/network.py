"""What passed through this machine's network interfaces, as the system counts it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from vmrun.core.records import Traffic

_TABLE = Path("/proc/net/dev")
_LOOPBACK = "lo"


class Network:
    """Counts from when it is made."""

    def __init__(self, table: Path = _TABLE) -> None:
        self._table = table
        self._before = self._look()

    def passed(self) -> Traffic:
        """What passed since the last call. Nothing, where the system does not tell."""
        before, self._before = self._before, self._look()
        sent, received = (max(0, now - then) for now, then in zip(self._before, before, strict=True))
        return Traffic(sent=sent, received=received)

    def _look(self) -> tuple[int, int]:
        try:
            return counted(self._table.read_text("ascii").splitlines())
        except (OSError, ValueError, IndexError):
            return 0, 0


def counted(lines: Iterable[str]) -> tuple[int, int]:
    """(bytes sent, bytes received) by all interfaces but the loopback, from the lines of `/proc/net/dev`."""
    sent = received = 0
    for line in lines:
        name, colon, numbers = line.partition(":")
        if colon and name.strip() != _LOOPBACK:
            fields = numbers.split()
            received += int(fields[0])
            sent += int(fields[8])
    return sent, received
