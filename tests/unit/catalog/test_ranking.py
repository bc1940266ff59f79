"""The order of offers, and which types are among them."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmrun import catalog
from vmrun.catalog.packaged import packaged
from vmrun.catalog.refresh import keep
from vmrun.core.clouds import Market, Need, Offer
from vmrun.core.crew import fits
from vmrun.core.estates import PriceRow

TB = 10**12
ONE = Offer("ec2", "m6i.large", "us-east-1", "", "x86_64", 2, 1, 8 << 30, 0.1)

OFFERS = st.builds(
    Offer,
    on=st.sampled_from(catalog.CLOUDS),
    instance_type=st.sampled_from(["m6i.large", "m7i-flex.large", "bx2-2x8", "c4-standard-2"]),
    region=st.sampled_from(["us-east-1", "us-south"]),
    zone=st.sampled_from(["", "a", "b"]),
    arch=st.just("x86_64"),
    vcpus=st.integers(1, 4),
    cores=st.just(1),
    memory=st.integers(1, 4).map(lambda gib: gib << 30),
    usd_per_hour=st.none() | st.sampled_from([0.0, 0.1, 0.2, 0.3]),
    spot=st.booleans(),
)


@given(st.lists(OFFERS, max_size=12), st.randoms(use_true_random=False))
def test_the_order_does_not_depend_on_where_offers_came_from(offers: list[Offer], rng: random.Random) -> None:
    shuffled = list(offers)
    rng.shuffle(shuffled)
    assert catalog.rank(shuffled) == catalog.rank(offers)
    assert sorted(map(repr, catalog.rank(offers))) == sorted(map(repr, offers))


@given(st.lists(OFFERS, max_size=12))
def test_spot_is_first_then_the_cheapest_and_unknown_prices_are_last(offers: list[Offer]) -> None:
    ranked = catalog.rank(offers)
    for one, next_ in itertools.pairwise(ranked):
        assert one.spot >= next_.spot
        if one.spot == next_.spot:
            assert one.usd_per_hour is not None or next_.usd_per_hour is None
            if one.usd_per_hour is not None and next_.usd_per_hour is not None:
                assert one.usd_per_hour <= next_.usd_per_hour


def test_at_one_price_the_full_processor_is_first_then_the_smaller_machine() -> None:
    throttled = replace(ONE, instance_type="m7i-flex.large", vcpus=1)
    larger = replace(ONE, vcpus=4)
    assert catalog.rank([throttled, larger, ONE]) == [ONE, larger, throttled]


@pytest.mark.parametrize(
    ("on", "regions", "name", "usd"),
    [
        ("ec2", ["us-east-1"], "r6a.32xlarge", 7.2576),
        ("ec2", ["us-west-2"], "r6a.32xlarge", 7.2576),
        ("gce", ["us-central1"], "c4-highmem-144", 9.384408),
        ("gce", ["us-east1"], "c4-highmem-144", 9.384408),
        ("gce", ["us-east4"], "c4-highmem-144", 9.384408),
        ("gce", ["us-west1"], "c4-highmem-144", 9.384408),
        ("ibm", ["us-south"], "mx2-128x1024", 8.306),
        ("ibm", ["us-east"], "mx2-128x1024", 8.306),
        ("ec2", ["eu-west-1", "eu-central-1"], "r6a.32xlarge", 8.1216),
    ],
)
def test_the_cheapest_machine_with_128_vcpus_and_a_terabyte(on: str, regions: list[str], name: str, usd: float) -> None:
    first = catalog.offers(on, Need(cpus=128, memory=TB), regions)[0]
    assert (first.instance_type, first.zone, first.spot) == (name, "", False)
    assert first.usd_per_hour == pytest.approx(usd, abs=1e-6)
    assert first.priced_at
    assert first.region in regions


NEEDS = st.builds(
    Need,
    cpus=st.sampled_from([0, 1, 16, 64, 128, 200, 1000]),
    memory=st.sampled_from([0, 10**9, 64 * 10**9, TB, 30 * TB]),
    task_memory=st.sampled_from([0, 10**9, TB]),
    arch=st.sampled_from(["", "x86_64", "arm64"]),
    instance_type=st.sampled_from(["", "", "", "r6a.32xlarge", "m7i-flex.large", "mx2-128x1024", "no-such"]),
    region=st.sampled_from(["", "", "us-east-1", "us-south", "us-east1", "eu-nowhere"]),
    market=st.sampled_from(list(Market)),
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(catalog.CLOUDS), NEEDS)
def test_what_is_offered_is_all_that_fits_and_nothing_else(on: str, need: Need) -> None:
    regions = catalog.regions(on)[:2]
    found = catalog.offers(on, need, regions)
    for offer in found:
        assert offer.on == on
        assert offer.vcpus >= need.cpus
        assert catalog.usable(on, offer.memory) >= need.memory
        assert need.arch in ("", offer.arch)
        assert need.instance_type in ("", offer.instance_type)
        assert offer.region in regions
        assert need.region in ("", offer.region)
        assert offer.spot is (need.market is Market.spot) or need.market is Market.spot_with_fallback
        assert 1 <= offer.cores <= offer.vcpus
        assert (offer.usd_per_hour is None) == (offer.priced_at == "") or offer.spot
    expected = {
        (row.instance_type, row.region)
        for row in packaged(on).rows
        if row.region in regions
        and row.vcpus >= need.cpus
        and row.memory_gib * 2**30 * 0.93 >= need.memory
        and fits(int(row.memory_gib * 2**30 * 0.93), need.task_memory)
        and need.arch in ("", row.arch)
        and need.region in ("", row.region)
        and (need.instance_type == row.instance_type if need.instance_type else "-flex." not in row.instance_type)
        and (need.market is not Market.spot or catalog.has_spot(on, row.instance_type))
    }
    assert {(offer.instance_type, offer.region) for offer in found} == expected
    assert found == catalog.rank(found)


def test_spot_comes_first_and_on_demand_follows_where_both_will_do() -> None:
    need = Need(cpus=32, market=Market.spot_with_fallback)
    found = catalog.offers("gce", need, ["us-central1"])
    markets = [offer.spot for offer in found]
    assert markets == sorted(markets, reverse=True)
    assert {True, False} == set(markets)
    assert found[0].bucket == "PREEMPTIBLE_CPUS"
    only = catalog.offers("gce", replace(need, market=Market.spot), ["us-central1"])
    assert only == [offer for offer in found if offer.spot]


def test_ibm_has_no_spot_machine_with_128_vcpus() -> None:
    regions = catalog.regions("ibm")
    assert catalog.offers("ibm", Need(cpus=128, market=Market.spot), regions) == []
    small = catalog.offers("ibm", Need(cpus=16, market=Market.spot), regions)
    assert {catalog.family("ibm", offer.instance_type) for offer in small} == {"bxf", "cxf", "mxf"}
    assert all(offer.usd_per_hour is None for offer in small)


def test_the_spot_prices_of_ec2_are_of_an_unknown_date() -> None:
    found = catalog.offers("ec2", Need(market=Market.spot), ["us-east-1"])
    assert found[0].usd_per_hour is not None
    assert {offer.priced_at for offer in found} == {""}


def test_types_can_be_ruled_out_by_pattern() -> None:
    need = Need(cpus=128, memory=TB)
    found = catalog.offers("ec2", need, ["us-east-1"], exclude=("r6a.*", "*.48xlarge"))
    assert found[0].instance_type == "r6i.32xlarge"
    assert not [offer for offer in found if offer.instance_type.endswith(".48xlarge")]


def test_a_zone_stands_for_its_region() -> None:
    need = Need(cpus=2)
    for on, region, zone in (("ec2", "us-east-1", "us-east-1a"), ("gce", "us-east1", "us-east1-b")):
        found = catalog.offers(on, replace(need, zone=zone), catalog.regions(on))
        assert {offer.region for offer in found} == {region}
    assert catalog.offers("ec2", replace(need, zone="eu-north-1a"), catalog.regions("ec2")) == []


def test_a_throttled_type_is_taken_only_by_name() -> None:
    assert not [offer for offer in catalog.offers("ec2", Need(cpus=2), ["us-east-1"]) if "flex" in offer.instance_type]
    assert catalog.offers("ec2", Need(instance_type="m7i-flex.large"), ["us-east-1"])


def test_other_names_have_no_catalogue() -> None:
    assert catalog.regions("docker") == ()
    assert catalog.offers("docker", Need(), ["us-east-1"]) == []
    assert catalog.offers("ec2", Need(), []) == []


def test_a_type_with_hardly_any_memory_must_be_named(tmp_path: Path) -> None:
    rows = [
        PriceRow(f"t3.{name}", 2, 1, gib, "x86_64", 0, "r", 0.1 * gib, None, "")
        for name, gib in (("nano", 0.5), ("micro", 1), ("small", 2))
    ]
    keep(catalog.table_of("ec2", "2026-11-26", rows), tmp_path)
    found = catalog.offers("ec2", Need(), ["r"], cache_dir=tmp_path)
    assert [offer.instance_type for offer in found] == ["t3.small"]
    named = catalog.offers("ec2", Need(instance_type="t3.nano"), ["r"], cache_dir=tmp_path)
    assert [offer.instance_type for offer in named] == ["t3.nano"]
