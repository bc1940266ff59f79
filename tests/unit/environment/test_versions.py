"""Which Python a job runs under."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmrun.core.errors import UsageError
from vmrun.environment.versions import admits, choose_python


@pytest.mark.parametrize(
    ("requires", "admitted", "ruled_out"),
    [
        ("", ["3.8", "3.14"], []),
        (">=3.11", ["3.11", "3.12"], ["3.10"]),
        (">=3.11.4", ["3.11"], ["3.10"]),
        (">3.11", ["3.11", "3.12"], ["3.10"]),
        ("<3.12", ["3.11"], ["3.12"]),
        ("<=3.12", ["3.12", "3.11"], ["3.13"]),
        ("<3.12.5,>=3.12", ["3.12"], ["3.11", "3.13"]),
        ("==3.12.*", ["3.12"], ["3.11", "3.13"]),
        ("== 3.12.1", ["3.12"], ["3.11"]),
        ("==3.*", ["3.9", "3.14"], []),
        ("!=3.12.*", ["3.11", "3.13"], ["3.12"]),
        ("!=3.12.0", ["3.12"], []),
        ("~=3.11", ["3.11", "3.14"], ["3.10"]),
        ("~=3.11.2", ["3.11"], ["3.12"]),
        (">=3.11, <4", ["3.14"], ["3.10"]),
        (">=3.13.0rc1", ["3.13"], ["3.12"]),
        (">=4", [], ["3.14"]),
    ],
)
def test_specifiers(requires: str, admitted: list[str], ruled_out: list[str]) -> None:
    assert [minor for minor in admitted if not admits(requires, minor)] == []
    assert [minor for minor in ruled_out if admits(requires, minor)] == []


@pytest.mark.parametrize("requires", ["3.11", ">=three", ">=3.11 <4", "~=3.*", ">=3.*", "=3.11", "==="])
def test_what_is_no_specifier_is_refused(requires: str) -> None:
    with pytest.raises(UsageError, match="is not a version specifier"):
        admits(requires, "3.11")


@given(st.integers(8, 20), st.integers(0, 30), st.integers(8, 20))
def test_a_lower_bound_and_its_opposite_share_out_all_minors(bound: int, patch: int, minor: int) -> None:
    version, python = f"3.{bound}.{patch}", f"3.{minor}"
    assert admits(f">={version}", python) or admits(f"<{version}", python)
    assert admits(f">={version}", python) == (minor >= bound)


def test_the_clients_own_python_comes_first() -> None:
    assert choose_python("", "3.11") == "3.11"
    assert choose_python(">=3.10", "3.11") == "3.11"


def test_another_is_taken_where_the_clients_is_ruled_out() -> None:
    assert choose_python(">=3.12", "3.11", known=("3.13", "3.12")) == "3.13"
    assert choose_python("==3.12.*", "3.11") == "3.12"


def test_a_wish_wins_if_the_script_allows_it() -> None:
    assert choose_python(">=3.11", "3.11", "3.12") == "3.12"
    with pytest.raises(UsageError, match=r"requires Python <3\.12, and 3\.13 was asked for"):
        choose_python("<3.12", "3.11", "3.13")


def test_what_nothing_meets_is_refused() -> None:
    with pytest.raises(UsageError, match=r"requires Python <3\.5"):
        choose_python("<3.5", "3.11")
