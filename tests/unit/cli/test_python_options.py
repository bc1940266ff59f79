"""Options of `vmrun.submit` and `vmrun.Executor`: taken as people write them, refused with the way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vmrun.core.errors import UsageError
from vmrun.submit.checked import checked_request
from vmrun.submit.request import SubmitRequest


def test_sizes_and_durations_are_written_as_on_the_command_line() -> None:
    options = {"memory": "1TB", "keep_warm": "10m", "cpus": 128, "on": "docker", "name": None}
    assert checked_request(options, "vmrun.Executor") == {
        "memory": 10**12,
        "keep_warm": 600.0,
        "cpus": 128,
        "on": "docker",
    }


@pytest.mark.parametrize("given", ["numpy", ["numpy"], ("numpy",)])
def test_one_package_is_not_its_letters(given: Any) -> None:
    assert checked_request({"with_packages": given}, "vmrun.submit") == {"with_packages": ("numpy",)}


def test_what_comes_out_is_a_request() -> None:
    fields = checked_request({"requirements": Path("r.txt"), "python": "3.12", "retries": 2}, "vmrun.submit")
    assert SubmitRequest(**fields).requirements == "r.txt"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nonsense": 1}, "vmrun.Executor: unknown option 'nonsense'"),
        ({"argv": ["x"]}, "vmrun.Executor: unknown option 'argv'"),
        ({"memory": "much"}, "memory: 'much' is not a size"),
        ({"with_packages": [1]}, "with_packages: expected texts"),
        ({"with_packages": 1}, "with_packages: expected texts"),
        ({"python": 3.12}, "python: expected a text, found 3.12"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_hint(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        checked_request(options, "vmrun.Executor", ("python", "with_packages", "requirements"))
    assert message in refused.value.message
    assert refused.value.hint
