"""Which processor a job's machine must have, where nobody says."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from vmrun.core.errors import UsageError
from vmrun.environment.target import this_machine
from vmrun.settings import load_settings
from vmrun.submit.options import Options, decide
from vmrun.submit.processor import arch_of, for_program, settled
from vmrun.submit.request import SubmitRequest

X86, ARM, RISCV = 62, 183, 243
OWN = this_machine().arch


def options(on: str = "local", arch: str | None = None) -> Options:
    return decide(SubmitRequest(on=on, arch=arch), {}, {}, load_settings(), "job")


def program(folder: Path, machine: int, *, order: int = 1) -> Path:
    """A file that begins as a program for that machine does."""
    path = folder / "simulate"
    layout = "<4sBB12xH" if order == 1 else ">4sBB12xH"
    path.write_bytes(struct.pack(layout, b"\x7fELF", 2, order, machine) + b"\0" * 64)
    return path


@pytest.mark.parametrize(("machine", "arch"), [(X86, "x86_64"), (3, "x86_64"), (ARM, "arm64"), (RISCV, "")], ids=str)
def test_a_program_says_what_it_runs_on(tmp_path: Path, machine: int, arch: str) -> None:
    assert arch_of(program(tmp_path, machine)) == arch


def test_what_is_no_program_of_that_kind_says_nothing(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\necho hello, this is long enough for a header\n")
    assert arch_of(script) == ""
    script.write_bytes(b"\x7fELF")
    assert arch_of(script) == ""
    assert arch_of(tmp_path / "missing") == ""
    assert arch_of(program(tmp_path, X86, order=2)) == ""


@pytest.mark.parametrize("said", [None, "any"])
def test_a_program_that_travels_decides_wherever_it_runs(tmp_path: Path, said: str | None) -> None:
    for on in ("ec2", "auto", "ssh", "local"):
        decided = settled(for_program(options(on, said), program(tmp_path, ARM)), locked=False)
        assert decided.need.arch == "arm64"


def test_a_program_and_another_processor_are_refused(tmp_path: Path) -> None:
    assert for_program(options("ec2", "x86_64"), program(tmp_path, X86)).need.arch == "x86_64"
    with pytest.raises(UsageError, match="is a program for arm64, and --arch says x86_64") as refused:
        for_program(options("ec2", "x86_64"), program(tmp_path, ARM))
    assert "leave --arch out" in refused.value.hint


@pytest.mark.parametrize(
    ("on", "said", "locked", "arch"),
    [
        # Rented, the cheapest machine need not be of this computer's kind
        ("ec2", None, False, OWN),
        ("gce", None, True, OWN),
        ("auto", None, False, OWN),
        ("ec2", "any", False, ""),
        ("ibm", "arm64", False, "arm64"),
        # Packages are chosen for one processor
        ("ec2", "any", True, OWN),
        ("ssh", None, True, OWN),
        # Other machines are what they are
        ("ssh", None, False, ""),
        ("docker", None, False, ""),
        ("local", "any", False, ""),
    ],
)
def test_what_nobody_said_is_this_computers_processor(on: str, said: str | None, locked: bool, arch: str) -> None:
    assert settled(options(on, said), locked=locked).need.arch == arch
