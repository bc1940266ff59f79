"""Which program travels with a command, and which is expected on the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmrun.bundle import program
from vmrun.bundle.modules import read_files
from vmrun.core.errors import UsageError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tools").mkdir()
    for path in (tmp_path / "simulate", tmp_path / "tools" / "sort"):
        path.write_text("#!/bin/sh\n", "utf-8")
        path.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize(("word", "name"), [("./simulate", "simulate"), ("tools/sort", "sort")])
def test_a_relative_path_travels_and_stays_executable(here: Path, word: str, name: str) -> None:
    found = program.own_program(word)
    assert found is not None
    (item,) = read_files([found])
    assert (item.path, item.data, item.executable) == (name, b"#!/bin/sh\n", True)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("word", ["simulate", "sh", "/bin/sh", "/no/such/program"])
def test_a_bare_name_or_an_absolute_path_is_the_machines(word: str) -> None:
    assert program.own_program(word) is None


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("word", ["./nothing", "./tools", "tools/"])
def test_a_file_that_is_not_there_is_refused_before_a_machine_is_rented(word: str) -> None:
    with pytest.raises(UsageError, match="no program") as refused:
        program.own_program(word)
    assert refused.value.hint


def test_a_file_without_the_right_to_run_says_how_to_give_it(here: Path) -> None:
    (here / "simulate").chmod(0o644)
    with pytest.raises(UsageError) as refused:
        program.own_program("./simulate")
    assert "chmod +x ./simulate" in refused.value.hint


@pytest.mark.usefixtures("here")
def test_a_program_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "BUNDLE_MAX_BYTES", 5)
    with pytest.raises(UsageError, match="10 B"):
        program.own_program("./simulate")
