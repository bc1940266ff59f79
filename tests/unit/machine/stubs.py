"""A PATH of stand-ins, so that scripts meant for a machine can run here without ever reaching the real manager."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

#: Programs that scripts may use for real.
REAL = ("sh", "cat", "chmod", "mkdir", "mv", "ln", "timeout", "touch", "rm")


class Stubs:
    """A directory of programs; each stand-in writes its name and arguments to a log, then runs its own text."""

    def __init__(self, place: Path) -> None:
        self.place = place / "bin"
        self.place.mkdir()
        self._log = place / "calls"
        for name in REAL:
            found = shutil.which(name)
            assert found is not None
            (self.place / name).symlink_to(os.path.realpath(found))

    def add(self, name: str, text: str = "exit 0") -> None:
        """A stand-in; `text` is shell, with `$@`."""
        program = self.place / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> {self._log}\n{text}\n')
        program.chmod(0o755)

    def run(self, argv: Sequence[str], *, input: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
        """Run a program that finds nothing but these stand-ins."""
        variables = {"PATH": str(self.place), "LC_ALL": "C", **environment}
        return subprocess.run(argv, input=input, env=variables, capture_output=True, timeout=120, check=False)

    def calls(self) -> list[str]:
        """What was called, in order."""
        return self._log.read_text().splitlines() if self._log.exists() else []
