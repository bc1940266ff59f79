"""`vmrun offers`: the table, the document, what is refused, and what `--refresh` keeps."""

from __future__ import annotations

import calendar
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

import pytest

from vmrun import catalog, registry
from vmrun.catalog.refreshed import path_of
from vmrun.core.clouds import CloudError, Fault, Need
from vmrun.core.estates import PriceRow
from vmrun.provisioners.context import ProvisionerContext

#: 2026-11-26.
NOW = float(calendar.timegm((2026, 11, 26, 12, 0, 0)))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock) -> Path:
    """An empty cache directory, no credentials, and a day."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "GOOGLE_APPLICATION_CREDENTIALS", "IBMCLOUD_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VMRUN_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("VMRUN_CACHE_DIR", str(tmp_path / "cache"))
    clock._now = NOW
    return tmp_path / "cache"


BIG = ("offers", "--cpus", "128", "--memory", "1TB")


def test_the_cheapest_big_machine_of_each_cloud(vmrun) -> None:
    document = vmrun(*BIG, "--json").document
    first = {}
    for offer in document["offers"]:
        if offer["region"].startswith("us-"):
            first.setdefault((offer["on"], offer["region"]), offer["instance_type"])
    assert first == {
        ("ec2", "us-east-1"): "r6a.32xlarge",
        ("ec2", "us-west-2"): "r6a.32xlarge",
        ("gce", "us-central1"): "c4-highmem-144",
        ("gce", "us-east1"): "c4-highmem-144",
        ("gce", "us-east4"): "c4-highmem-144",
        ("gce", "us-west1"): "c4-highmem-144",
        ("ibm", "us-east"): "mx2-128x1024",
        ("ibm", "us-south"): "mx2-128x1024",
    }


def test_the_document_tells_all_of_an_offer(vmrun) -> None:
    document = vmrun(*BIG, "--on", "ec2", "--region", "us-east-1", "--limit", "1", "--json").document
    assert document["offers"] == [
        {
            "on": "ec2",
            "instance_type": "r6a.32xlarge",
            "region": "us-east-1",
            "arch": "x86_64",
            "vcpus": 128,
            "cores": 64,
            "memory_gib": 1024.0,
            "usable_memory_gib": 952.32,
            "usd_per_hour": 7.2576,
            "usd_per_core_hour": 0.1134,
            "spot": False,
            "priced_at": "2026-07-20",
            "price_age_days": 129,
            "quota": "L-1216C47A",
        }
    ]
    assert document["catalogue"] == {"ec2": "2026-11-22"}
    assert document["fitting"] > 20


def test_prices_rise_and_unknown_ones_are_last(vmrun) -> None:
    offers = vmrun("offers", "--cpus", "64", "--limit", "0", "--json").document["offers"]
    prices = [offer["usd_per_hour"] for offer in offers]
    known = [price for price in prices if price is not None]
    assert known == sorted(known)
    assert prices == known + [None] * (len(prices) - len(known))
    assert 0 < len(known) < len(prices)
    unknown = offers[-1]
    assert (unknown["priced_at"], unknown["price_age_days"], unknown["usd_per_core_hour"]) == ("", None, None)


def test_the_table(vmrun) -> None:
    done = vmrun(*BIG, "--on", "ec2,ibm", "--region", "us-east-1", "--region", "us-south", "--limit", "1")
    head, ec2, ibm = done.out.splitlines()
    titles = ["ON", "TYPE", "REGION", "ARCH", "VCPUS", "CORES", "MEMORY", "USABLE", "$/HOUR", "$/CORE", "PRICE", "OF"]
    assert head.split() == titles
    cells = ["ec2", "r6a.32xlarge", "us-east-1", "x86_64", "128", "64", "1.1", "TB", "1.02", "TB", "$7.2576", "$0.1134"]
    assert ec2.split() == [*cells, "4", "months", "ago"]
    assert ibm.split()[:3] == ["ibm", "mx2-128x1024", "us-south"]
    assert done.err.splitlines()[-1].startswith("2 of ")
    assert done.err.splitlines()[-1].endswith("--limit 0 shows all")


def test_what_the_table_cannot_tell_is_told_below_it(vmrun) -> None:
    done = vmrun("offers", "--on", "ec2", "--on", "ibm", "--cpus", "64", "--spot", "--limit", "2")
    assert "MARKET" in done.out
    assert done.out.count(" spot ") == 4
    assert "?: the price is not known; such offers come last" in done.err
    done = vmrun("offers", "--on", "ec2,ibm", "--cpus", "128", "--spot")
    assert "nothing on ibm fits" in done.err


def test_spot_and_on_demand_are_both_shown_where_both_will_do(vmrun) -> None:
    offers = vmrun("offers", "--on", "gce", "--spot-with-fallback", "--limit", "2", "--json").document["offers"]
    assert [offer["spot"] for offer in offers] == [True, True, False, False]


def test_flags_narrow_what_is_shown(vmrun) -> None:
    offers = vmrun("offers", "--arch", "arm64", "--cpus", "8", "--json").document["offers"]
    assert {offer["arch"] for offer in offers} == {"arm64"}
    assert {offer["on"] for offer in offers} == {"ec2", "gce"}
    offers = vmrun("offers", "--instance-type", "r7a.32xlarge", "--json").document["offers"]
    assert {offer["instance_type"] for offer in offers} == {"r7a.32xlarge"}
    assert {offer["cores"] for offer in offers} == {128}


@pytest.mark.parametrize(
    ("arguments", "code", "message", "hint"),
    [
        (["--cpus", "1000"], 4, "nothing on ec2, gce, ibm fits", "the nearest is u7i-12tb.224xlarge on ec2"),
        (["--on", "ibm", "--spot", "--cpus", "128"], 4, "nothing on ibm fits", "at the on-demand price, cx2-128x256"),
        (["--region", "us-east-9"], 4, "nothing on ec2, gce, ibm fits", "has no region us-east-9, but us-east-1, "),
        (["--instance-type", "r6a.32xlarg"], 4, "nothing on ec2", "did you mean r6a.32xlarge?"),
        (["--on", "moon"], 2, "there is no provisioner named 'moon'", "ec2"),
        (["--on", "local"], 2, "--on: local rents no machines", "ec2, gce, ibm, auto"),
        (["--on", "auto"], 2, "no cloud is configured", "ec2, gce, ibm"),
        (["--refresh"], 2, "no cloud is configured", "ec2, gce, ibm"),
        (["--spot", "--on-demand"], 2, "--spot and --on-demand do not go together", "--spot-with-fallback"),
        (["--memory", "lots"], 2, "--memory: 'lots' is not a size", "512MB"),
        (["--arch", "vax"], 2, "--arch: unknown architecture 'vax'", "x86_64"),
        (["--region", "a b"], 2, "--region: 'a b' is no name of a cloud's", ""),
        (["--limit", "-1"], 2, "'--limit'", "vmrun offers --help"),
        (["--cpus", "0"], 2, "--cpus: 0 is not a whole number", ""),
    ],
)
def test_what_cannot_be_had_has_a_code_and_a_way_out(vmrun, arguments, code, message, hint) -> None:
    done = vmrun("offers", *arguments)
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert hint in done.err
    error = vmrun("offers", *arguments, "--json").document["error"]
    assert message in error["message"]


def test_auto_stands_for_the_clouds_that_are_configured(vmrun, here: Path) -> None:
    (here / "vmrun.toml").write_text('[ibm]\nregions = ["us-south"]\n')
    offers = vmrun("offers", "--on", "auto", "--cpus", "64", "--json").document["offers"]
    assert {offer["on"] for offer in offers} == {"ibm"}


def test_a_broken_catalogue_in_the_cache_is_warned_of_and_not_used(vmrun, cache: Path) -> None:
    path_of("ec2", cache).parent.mkdir(parents=True)
    path_of("ec2", cache).write_text("{")
    done = vmrun(*BIG)
    assert done.code == 0
    assert "r6a.32xlarge" in done.out
    assert f"warning: the refreshed catalogue {path_of('ec2', cache)} cannot be used" in done.err
    assert vmrun(*BIG, "--on", "gce").err.count("warning") == 0


# --- refresh ---

ROW = PriceRow("m99.metal", 200, 200, 2048, "x86_64", 0, "us-east-1", 1.5, None, "2026-11-26")


class Account:
    """The account of a cloud that tells what it is told to."""

    def __init__(self, name: str, *rows: PriceRow, error: CloudError | None = None) -> None:
        self.name = name
        self._rows = rows
        self._error = error

    def prices(self) -> Iterator[PriceRow]:
        yield from self._rows
        if self._error is not None:
            raise self._error


@pytest.fixture
def accounts(monkeypatch: pytest.MonkeyPatch) -> dict[str, Account]:
    """The accounts that the drivers' packages open."""
    made: dict[str, Account] = {}
    entries = {}
    for on in registry.CLOUDS:
        package, module = types.ModuleType(f"fake_{on}"), types.ModuleType(f"fake_{on}.estate")

        def open_estate(context: ProvisionerContext, on: str = on) -> Account:
            assert context.settings["regions"]
            return made[on]

        module.open_estate = open_estate  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, f"fake_{on}", package)
        monkeypatch.setitem(sys.modules, f"fake_{on}.estate", module)
        entries[on] = registry.Entry(f"fake_{on}.driver", "a cloud", extra=on)
    monkeypatch.setattr(registry, "PROVISIONERS", MappingProxyType(entries))
    return made


def test_refresh_keeps_what_the_cloud_tells_for_the_next_time(vmrun, accounts, cache: Path) -> None:
    accounts["ec2"] = Account("ec2", ROW)
    done = vmrun(*BIG, "--on", "ec2", "--refresh", "--limit", "1", "--json")
    assert done.document["offers"][0]["instance_type"] == "m99.metal"
    assert done.document["offers"][0]["price_age_days"] == 0
    assert done.document["catalogue"] == {"ec2": "2026-11-26"}
    accounts.clear()
    assert "m99.metal" in vmrun(*BIG, "--limit", "1").out
    assert catalog.offers("ec2", Need(), ["us-east-1"], cache_dir=cache)[0].instance_type == "m99.metal"


def test_refresh_asks_all_that_are_configured_and_goes_on_when_one_fails(vmrun, accounts, here: Path) -> None:
    (here / "vmrun.toml").write_text('[ec2]\npublic_ip = true\n[gce]\nproject = "p"\n')
    accounts["ec2"] = Account("ec2", ROW)
    accounts["gce"] = Account("gce", error=CloudError("gce said no", hint="ask again"))
    done = vmrun(*BIG, "--refresh", "--limit", "1")
    assert done.code == 0
    assert "ec2: 1 types and prices in us-east-1" in done.err
    assert "warning: gce said no (ask again)" in done.err
    assert "m99.metal" in done.out
    assert "c4-highmem-144" in done.out


def test_refresh_that_nobody_answers_is_an_error_and_changes_nothing(vmrun, accounts, cache: Path) -> None:
    accounts["gce"] = Account("gce", error=CloudError("gce said no", hint="ask again"))
    done = vmrun(*BIG, "--refresh", "--on", "gce")
    assert (done.code, done.out) == (4, "")
    assert "gce said no" in done.err
    assert not cache.exists()


@pytest.mark.parametrize(
    ("fault", "code"), [(Fault.permission, 9), (Fault.billing, 9), (Fault.config, 2), (Fault.unavailable, 4)]
)
def test_refresh_exits_by_the_kind_of_refusal(vmrun, accounts, fault: Fault, code: int) -> None:
    accounts["ibm"] = Account("ibm", error=CloudError("ibm said no", fault=fault, hint="ask again"))
    done = vmrun("offers", "--refresh", "--on", "ibm")
    assert (done.code, done.out) == (code, "")
    assert "ibm said no" in done.err
    assert "ask again" in done.err
