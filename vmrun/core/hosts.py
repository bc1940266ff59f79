"""A machine that can be worked on: run a command, put a file. SSH and this very machine are its two kinds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Completed:
    """What a command left behind."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class Host(Protocol):
    """One machine. Every call is bounded in time and raises Unreachable when the machine cannot be reached."""

    def run(self, argv: Sequence[str], *, input: bytes = b"", timeout: float = 60.0) -> Completed:
        """Run a command and wait for it. Arguments reach it as they are: no shell interprets them."""
        ...

    def put(self, path: str, chunks: Iterable[bytes], *, mode: int = 0o600) -> None:
        """Write a file, whole or not at all (temporary name, then rename), making its directories (0700)."""
        ...

    def close(self) -> None:
        """Let go of the connection; closing twice is fine."""
        ...
