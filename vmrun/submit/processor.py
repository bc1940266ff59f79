"""Which processor a job's machine must have, where nobody says: a program, and most packages, run on one kind only."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

from vmrun.catalog import CLOUDS
from vmrun.core.errors import UsageError
from vmrun.environment.target import this_machine
from vmrun.job import ANY_ARCH, ARCHITECTURES

from .options import Options

_RENTED = (*CLOUDS, "auto")
#: The machine field of an ELF header: x86-64 and its 32-bit forebear, and AArch64.
_MACHINES = {3: "x86_64", 62: "x86_64", 183: "arm64"}
_HEADER = struct.Struct("<4sBB12xH")


def for_program(options: Options, program: Path) -> Options:
    """`options` for a job of a program that travels with it. Raises UsageError if that cannot run on what was said."""
    said, native = options.need.arch, arch_of(program)
    if native and said in ARCHITECTURES and said != native:
        raise UsageError(
            f"{program} is a program for {native}, and --arch says {said}",
            hint=f"leave --arch out, or compile the program for {said}",
        )
    return _with(options, native or said)


def settled(options: Options, *, locked: bool) -> Options:
    """`options` with the architecture decided; "" in `need.arch` is any from then on.

    `locked`: the job's packages are chosen for one processor. Where machines are rented there are several kinds, of
    which the cheapest need not be this computer's.
    """
    said, own = options.need.arch, this_machine().arch
    if said in ARCHITECTURES:
        return options
    wanted = locked or (options.on in _RENTED and said != ANY_ARCH)
    return _with(options, own if wanted and own in ARCHITECTURES else "")


def _with(options: Options, arch: str) -> Options:
    return replace(options, need=replace(options.need, arch=arch))


def arch_of(path: Path) -> str:
    """The processor that a program is made for, by its ELF header; "" for a script, or what is not known."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
    except OSError:
        return ""
    if len(head) < _HEADER.size:
        return ""
    magic, _, order, machine = _HEADER.unpack(head)
    return _MACHINES.get(machine, "") if magic == b"\x7fELF" and order == 1 else ""
