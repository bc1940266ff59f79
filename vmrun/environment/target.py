"""What packages are chosen for: a version of Python and a processor."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass

from vmrun.core.blocks import PYTHON
from vmrun.core.errors import UsageError

#: uv's names. glibc 2.28 is that of Debian 10, Ubuntu 20.04 and RHEL 8.
_PLATFORMS = {
    ("linux", "x86_64"): "x86_64-manylinux_2_28",
    ("linux", "arm64"): "aarch64-manylinux_2_28",
    ("darwin", "x86_64"): "x86_64-apple-darwin",
    ("darwin", "arm64"): "aarch64-apple-darwin",
}
_ALIASES = {"amd64": "x86_64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class Target:
    """A machine to choose packages for."""

    #: Python `major.minor`.
    python: str
    #: `x86_64` or `arm64`.
    arch: str
    #: As `sys.platform` has it; VMs run Linux.
    system: str = "linux"

    def __post_init__(self) -> None:
        if (self.system, self.arch) not in _PLATFORMS:
            raise UsageError(
                f"no packages can be chosen for {self.arch!r} on {self.system}",
                hint="x86_64 and arm64 are known, on Linux and macOS",
            )

    @property
    def platform(self) -> str:
        """The target in uv's words."""
        return _PLATFORMS[self.system, self.arch]


def this_machine(python: str = PYTHON) -> Target:
    """The target that this machine itself is."""
    machine = platform.machine().lower()
    return Target(python, _ALIASES.get(machine, machine), sys.platform)
