"""Which offer comes next: the table of faults, scopes and markets."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from vmrun.core.clouds import CloudError, Fault, Offer, Scope
from vmrun.fleet.search import (
    AGAIN_MAX,
    AGAIN_SECONDS,
    RULES,
    SECONDS_MAX,
    SPOT_TRIES_MAX,
    TRIES_MAX,
    Search,
    again,
    reach,
    ruled_out,
)

NOW = 1_700_000_000.0
#: What there is: two clouds, two regions of two zones each, two types in each of two buckets, both markets.
OFFERS = [
    Offer(on, f"{bucket}-{size}", region, f"{region}-{zone}", "x86_64", 128, 64, 1 << 40, 1.0, spot, "", bucket)
    for on, region, zone, bucket, size, spot in itertools.product(
        ("ec2", "gce"), ("east", "west"), "ab", ("std", "mem"), ("small", "large"), (False, True)
    )
]
FIRST = next(each for each in OFFERS if not each.spot)

#: By fault: what the other offers must have in common with the failed one to be ruled out too, for each scope.
OFFER = ("on", "region", "zone", "instance_type", "spot")
ZONE = ("on", "region", "zone", "spot")
BUCKET = ("on", "region", "bucket", "spot")
REGION = ("on", "region", "spot")
CLOUD = ("on",)
AS_TOLD = {Scope.offer: OFFER, Scope.zone: ZONE, Scope.bucket: BUCKET, Scope.region: REGION, Scope.cloud: CLOUD}
TABLE = {
    Fault.stockout: AS_TOLD,
    Fault.preempted: AS_TOLD,
    Fault.not_offered: AS_TOLD,
    # A quota is regional at the least
    Fault.quota: {**AS_TOLD, Scope.offer: BUCKET, Scope.zone: BUCKET},
    Fault.throttle: dict.fromkeys(Scope, CLOUD),
    Fault.unavailable: dict.fromkeys(Scope, CLOUD),
    Fault.permission: dict.fromkeys(Scope, CLOUD),
    Fault.billing: dict.fromkeys(Scope, CLOUD),
}


def failed_with(fault: Fault, scope: Scope, failed: Offer) -> list[Offer]:
    """What a search still tries after one offer failed so."""
    search = Search([failed, *(each for each in OFFERS if each != failed)])
    assert search.next(0.0) == failed
    search.failed(failed, CloudError("no", fault=fault, scope=scope), NOW)
    left = list(iter(lambda: search.next(0.0), None))
    return [each for each in OFFERS if each in left]


def alike(one: Offer, other: Offer, fields: tuple[str, ...]) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in fields)


@pytest.mark.parametrize("spot", [False, True])
@pytest.mark.parametrize(
    ("fault", "scope"), [pytest.param(f, s, id=f"{f.value}-{s.value}") for f in TABLE for s in Scope]
)
def test_a_fault_rules_out_what_would_meet_it_again_and_nothing_else(fault: Fault, scope: Scope, spot: bool) -> None:
    failed = replace(FIRST, spot=spot)
    left = failed_with(fault, scope, failed)
    assert left == [each for each in OFFERS if not alike(each, failed, TABLE[fault][scope])]


@pytest.mark.parametrize("scope", list(Scope))
@pytest.mark.parametrize("fault", [Fault.config, Fault.unknown])
def test_what_no_other_offer_would_help_ends_the_search(fault: Fault, scope: Scope) -> None:
    search = Search(OFFERS)
    offer = search.next(0.0)
    assert offer is not None
    assert search.failed(offer, CloudError("no", fault=fault, scope=scope, cloud_code="Odd"), NOW) == []
    assert search.next(0.0) is None
    assert fault.value in search.ended
    assert [(each.fault, each.code) for each in search.tried] == [(fault, "Odd")]


def test_the_table_knows_every_fault() -> None:
    assert set(RULES) == set(Fault) == {*TABLE, Fault.config, Fault.unknown, Fault.name_taken}


def test_an_offer_whose_machines_name_is_taken_is_tried_once_more_and_then_the_next_one() -> None:
    search = Search(OFFERS)
    taken = CloudError("another has it", fault=Fault.name_taken)
    first = search.next(0.0)
    assert first == OFFERS[0]
    assert search.failed(first, taken, NOW) == []
    assert search.next(0.0) == first
    search.failed(first, taken, NOW)
    assert search.next(0.0) == OFFERS[1]
    assert search.ended == ""


@pytest.mark.parametrize("fault", list(Fault))
def test_the_same_request_is_sent_again_only_where_it_can_help(fault: Fault) -> None:
    sends = next(count for count in itertools.count(1) if not again(fault, count, 0.0))
    expected = {Fault.throttle: AGAIN_MAX + 1, Fault.unavailable: AGAIN_MAX + 1, Fault.unknown: 2}
    assert sends == expected.get(fault, 1)
    assert not again(fault, 1, AGAIN_SECONDS)


def test_where_the_instance_may_exist_there_is_doubt() -> None:
    assert {fault for fault in Fault if RULES[fault].doubt} == {Fault.unavailable, Fault.unknown}


def test_a_fault_reaches_as_far_as_the_cloud_says_or_as_its_kind_does() -> None:
    assert reach(CloudError("no", fault=Fault.quota, scope=Scope.cloud)) is Scope.cloud
    assert reach(CloudError("no", fault=Fault.quota, scope=Scope.zone)) is Scope.bucket
    assert reach(CloudError("no", fault=Fault.stockout, scope=Scope.region)) is Scope.region


def test_the_quota_that_the_cloud_names_is_ruled_out_beside_the_offers_own() -> None:
    error = CloudError("no", fault=Fault.quota, scope=Scope.bucket, bucket="mem")
    assert FIRST.bucket == "std"
    out = ruled_out(FIRST, error, NOW)
    mine = [each for each in OFFERS if each.on == FIRST.on and each.region == FIRST.region and not each.spot]
    assert all(any(entry.covers(each) for entry in out) for each in mine)
    assert not any(entry.covers(replace(each, region="west")) for entry in out for each in mine)


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [(fault, {"stockout": 180, "preempted": 180, "quota": 600}.get(fault.value, 0)) for fault in Fault],
)
def test_other_searches_are_told_of_what_lasts_for_minutes(fault: Fault, seconds: float) -> None:
    told = Search([FIRST]).failed(FIRST, CloudError("no", fault=fault), NOW)
    assert [(entry.at, entry.until) for entry in told] == ([(NOW, NOW + seconds)] if seconds else [])


def test_what_another_search_found_comes_last_and_is_tried_when_nothing_else_is_left() -> None:
    first, second = OFFERS[0], OFFERS[-2]
    (known,) = ruled_out(first, CloudError("no", fault=Fault.stockout), NOW)
    search = Search([first, second], [known])
    assert search.skipped() == [(first, known)]
    assert search.next(0.0) == second
    search.failed(second, CloudError("no", fault=Fault.stockout), NOW)
    assert search.next(0.0) == first
    assert search.skipped() == []
    assert search.next(0.0) is None


def test_a_search_is_bounded_in_tries_and_in_time() -> None:
    search = Search([replace(FIRST, zone=f"z{number}") for number in range(TRIES_MAX + 5)])
    tries = 0
    while (offer := search.next(0.0)) is not None:
        search.failed(offer, CloudError("no", fault=Fault.stockout), NOW)
        tries += 1
    assert tries == TRIES_MAX
    assert "5 offers were not tried" in search.ended
    late = Search(OFFERS)
    assert late.next(SECONDS_MAX) is not None
    assert late.next(SECONDS_MAX + 1) is None
    assert "30 minutes" in late.ended


def test_a_search_among_hundreds_of_spot_offers_gets_to_those_on_demand() -> None:
    spot = [replace(FIRST, spot=True, zone=f"z{number}") for number in range(300)]
    search = Search([*spot, FIRST])
    tried = []
    while (offer := search.next(0.0)) is not None:
        tried.append(offer.spot)
        search.failed(offer, CloudError("none left", fault=Fault.stockout), 0.0)
    assert tried[: SPOT_TRIES_MAX + 1] == [True] * SPOT_TRIES_MAX + [False]
    assert len(tried) == TRIES_MAX


def test_no_offer_is_tried_twice() -> None:
    search = Search(OFFERS[:3])
    found = [search.next(0.0) for _ in range(4)]
    assert found == [*OFFERS[:3], None]
    assert search.ended == ""
