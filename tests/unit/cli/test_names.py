"""Names of jobs."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmrun.core.errors import UsageError
from vmrun.names import NAME_MAX, check_name, default_name


@pytest.mark.parametrize("name", ["x", "../x", "/etc/passwd", "a b", "🚀", "👩‍🚀", "שלום", "x" * NAME_MAX])
def test_accepted(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "  ", "a\nb", "a\rb", "\x00", "a\x1b", "a\u2028b", "\ud800", "x" * (NAME_MAX + 1)]
)
def test_refused(name: str) -> None:
    with pytest.raises(UsageError, match="--title") as caught:
        check_name(name, "--title")
    assert caught.value.exit_code == 2
    assert caught.value.hint


def test_made_from_what_runs() -> None:
    def simulate() -> None: ...

    assert default_name("runs/night.py") == "night"
    assert default_name("runs/night.py::simulate") == "simulate"
    assert default_name("", ("./bin/solver", "-x")) == "solver"
    assert default_name(simulate) == "simulate"
    assert default_name(functools.partial(simulate)) == "partial"
    assert default_name("") == "job"


@given(st.text(), st.lists(st.text()))
def test_a_made_name_is_always_a_valid_one(target: str, argv: list[str]) -> None:
    assert check_name(default_name(target, argv))
