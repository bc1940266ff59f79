"""The page about the command line says what the command line does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vmrun.commands import VERBS
from vmrun.commands.app import build, build_verb
from vmrun.core import errors

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
SHOWN = [name for name, verb in VERBS.items() if not verb.hidden]
HELP = {"-h", "--help"}


def options(command) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts if name.startswith("-")} - HELP


def test_every_verb_has_a_section_and_there_are_no_others() -> None:
    assert [name for name in SECTIONS if name != "Exit" and name != "JSON"] == SHOWN


@pytest.mark.parametrize("verb", SHOWN)
def test_every_option_of_a_verb_is_in_its_section_and_there_are_no_others(verb) -> None:
    documented = set(re.findall(r"`(--?[a-z][a-z-]*)", re.sub(r"(?m)^(?!\|).*$", "", SECTIONS[verb])))
    mentioned = {"--follow", "--watch", "--detach", "--dry-run"}  # in the cells of other options
    assert options(build_verb(verb)) <= documented
    assert documented - options(build_verb(verb)) <= mentioned


@pytest.mark.parametrize("verb", SHOWN)
def test_every_section_has_examples(verb) -> None:
    assert re.search(rf"^    vmrun {verb}\b(?! \[)", SECTIONS[verb], re.MULTILINE)


def test_options_of_vmrun_itself() -> None:
    assert all(f"`{name}`" in PAGE for name in options(build()))


def test_every_exit_code_is_listed() -> None:
    def tree(kind: type[errors.VmrunError]) -> set[int]:
        return {kind.exit_code}.union(*(tree(each) for each in kind.__subclasses__()))

    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}
    assert tree(errors.VmrunError) <= listed
    assert {0, 130, 141} <= listed
