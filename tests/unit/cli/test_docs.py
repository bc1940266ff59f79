"""The page about the command line says what the command line does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vmrun.commands import VERBS
from vmrun.commands.app import build_verb

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## vmrun (\S+)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
SHOWN = [name for name, verb in VERBS.items() if not verb.hidden]


def test_every_verb_has_a_section_and_there_are_no_others() -> None:
    assert list(SECTIONS) == SHOWN


@pytest.mark.parametrize("verb", SHOWN)
def test_every_option_is_in_the_section_and_there_are_no_others(verb: str) -> None:
    rows = "\n".join(re.findall(r"^\| (`-.*?) \|", SECTIONS[verb], re.MULTILINE))
    documented = set(re.findall(r"`(--?[a-z-]+)`", rows))
    there = {name for parameter in build_verb(verb).params for name in parameter.opts if name.startswith("-")}
    assert documented == there - {"-h", "--help"}


@pytest.mark.parametrize("verb", SHOWN)
def test_every_section_has_examples(verb: str) -> None:
    assert re.search(rf"^- `vmrun {verb}\b.*`: \S", SECTIONS[verb], re.MULTILINE)
