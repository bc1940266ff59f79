"""Each cloud's SDK is loaded when its cloud is used, and no other one with it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clouds.double import Double
from tests.clouds.machines import PaperMachines
from tests.clouds.opening import NAMES, open_double
from tests.support.modules import loaded_by

#: Packages that belong to a cloud.
SDKS = {
    "ec2": {"boto3", "botocore"},
    "gce": {"googleapiclient", "google"},
    "ibm": {"ibm_vpc", "ibm_cloud_sdk_core"},
}


@pytest.fixture
def doubles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, Double]]:
    """All three clouds, configured in `tmp_path`."""
    with contextlib.ExitStack() as stack:
        made = {name: open_double(name, PaperMachines()) for name in NAMES}
        lines: list[str] = []
        for name, double in made.items():
            stack.callback(double.close)
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in double.settings().items())]
            for key, value in double.environment().items():
                monkeypatch.setenv(key, value)
        (tmp_path / "vmrun.toml").write_text("\n".join(lines) + "\n")
        (tmp_path / "job.py").write_text("print(1)\n")
        yield made


@pytest.fixture
def far_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that machines in a cloud can see; a dry run does not look at it."""
    monkeypatch.setenv("VMRUN_STORE", "s3://results/here")


def packages(arguments: list[str], cwd: Path) -> set[str]:
    """Packages of the clouds that `vmrun ARGUMENTS` loads; it must end well."""
    loaded = loaded_by(f"from vmrun.cli import run\nassert run({arguments!r}) == 0", cwd)
    assert "vmrun.cli" in loaded
    return {name.partition(".")[0] for name in loaded} & set.union(*SDKS.values())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["submit", "--help"],
        ["status"],
        ["status", "--json"],
        ["offers", "--cpus", "128", "--memory", "1TB"],
        ["offers", "--on", "ec2", "--on", "gce", "--on", "ibm"],
        ["offers", "--on", "auto"],
        ["reap", "--dry-run", "--help"],
        ["submit", "--on", "local", "job.py"],
    ],
    ids=" ".join,
)
def test_what_asks_no_cloud_loads_no_sdk(arguments: list[str], doubles: dict[str, Double], tmp_path: Path) -> None:
    assert packages(arguments, tmp_path) == set()
    assert [double.script.calls for double in doubles.values()] == [[], [], []]


@pytest.mark.usefixtures("far_store")
@pytest.mark.parametrize("cloud", NAMES)
def test_a_cloud_that_is_used_loads_its_own_sdk_alone(cloud: str, doubles: dict[str, Double], tmp_path: Path) -> None:
    found = packages(["submit", "--dry-run", "--on", cloud, "job.py"], tmp_path)
    assert found == SDKS[cloud]
    assert [name for name, double in doubles.items() if double.script.calls] == [cloud]


@pytest.mark.usefixtures("far_store")
def test_auto_loads_the_sdks_of_all_that_are_configured(doubles: dict[str, Double], tmp_path: Path) -> None:
    assert packages(["submit", "--dry-run", "--on", "auto", "job.py"], tmp_path) == set.union(*SDKS.values())
    assert all(double.script.calls for double in doubles.values())
