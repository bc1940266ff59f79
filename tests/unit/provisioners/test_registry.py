"""The registry: which drivers there are, and what is said when one cannot be had."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import pytest

from tests.unit.provisioners.manual_clock import ManualClock
from vmrun import registry
from vmrun.core.errors import ConfigError, UsageError
from vmrun.provisioners.context import ProvisionerContext


@pytest.fixture
def context(tmp_path: Path) -> ProvisionerContext:
    return ProvisionerContext(tmp_path / "state", tmp_path / "cache", ManualClock(), random.Random(1))


def test_local_is_the_first_and_can_be_opened(context: ProvisionerContext) -> None:
    assert registry.provisioner_names()[0] == "local"

    provisioner = registry.load_provisioner("local", context)

    assert provisioner.name == "local"
    assert list(provisioner.instances("0" * 26)) == []
    assert not context.state_dir.exists(), "looking must not make anything"


def test_every_driver_says_what_it_is_in_one_line() -> None:
    for name in registry.provisioner_names():
        assert 10 < len(registry.summary(name)) < 100
        assert "\n" not in registry.summary(name)


@pytest.mark.parametrize("name", ["", "ec", "Local", "../local", "x" * 10_000, "vmrun.registry"])
def test_an_unknown_name_is_a_usage_error_that_lists_the_names(name: str, context: ProvisionerContext) -> None:
    with pytest.raises(UsageError) as caught:
        registry.load_provisioner(name, context)

    assert len(caught.value.message) < 200
    for known in registry.provisioner_names():
        assert known in caught.value.hint


def test_a_missing_sdk_says_what_to_install(
    context: ProvisionerContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "driver_without_sdk.py").write_text("import no_such_sdk.client\n")
    monkeypatch.syspath_prepend(tmp_path)
    entry = registry.Entry("driver_without_sdk", "a cloud", extra="ec2")
    monkeypatch.setattr(registry, "PROVISIONERS", MappingProxyType({"ec2": entry}))

    with pytest.raises(ConfigError) as caught:
        registry.load_provisioner("ec2", context)

    assert "no_such_sdk" in caught.value.message
    assert caught.value.hint == "pip install 'vmrun[ec2]'"


def test_a_defect_of_vmrun_is_not_taken_for_a_missing_sdk(
    context: ProvisionerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = registry.Entry("vmrun.provisioners.no_such_driver", "a cloud")
    monkeypatch.setattr(registry, "PROVISIONERS", MappingProxyType({"x": entry}))

    with pytest.raises(ModuleNotFoundError):
        registry.load_provisioner("x", context)


def test_the_account_of_a_cloud_stands_beside_its_driver(
    context: ProvisionerContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cloud_with_account").mkdir()
    (tmp_path / "cloud_with_account" / "estate.py").write_text("def open_estate(context): return ['estate', context]\n")
    (tmp_path / "cloud_without_sdk").mkdir()
    (tmp_path / "cloud_without_sdk" / "estate.py").write_text("import no_such_sdk\n")
    monkeypatch.syspath_prepend(tmp_path)
    entries = {
        "ec2": registry.Entry("cloud_with_account.driver", "a cloud", extra="ec2"),
        "ibm": registry.Entry("cloud_without_sdk.driver", "a cloud", extra="ibm"),
        "local": registry.Entry("cloud_with_account.driver", "no cloud"),
    }
    monkeypatch.setattr(registry, "PROVISIONERS", MappingProxyType(entries))

    assert registry.load_estate("ec2", context) == ["estate", context]
    with pytest.raises(ConfigError) as missing:
        registry.load_estate("ibm", context)
    assert missing.value.hint == "pip install 'vmrun[ibm]'"
    with pytest.raises(UsageError, match="local needs no account"):
        registry.load_estate("local", context)
    with pytest.raises(UsageError, match="no provisioner named 'moon'"):
        registry.load_estate("moon", context)


def test_every_cloud_is_a_driver_and_has_an_extra_of_its_name() -> None:
    for name in registry.CLOUDS:
        assert registry.PROVISIONERS[name].extra == name
    assert registry.AUTO not in registry.provisioner_names()
    assert "configured" in registry.summary(registry.AUTO)


def test_the_registry_imports_no_driver() -> None:
    program = (
        "import sys, vmrun.registry as r; r.provisioner_names(); r.summary('docker');"
        "print([m for m in sys.modules if m.startswith('vmrun.provisioners.')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "['vmrun.provisioners.context']"
