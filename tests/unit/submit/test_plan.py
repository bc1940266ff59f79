"""What a submission would do: workers, their threads and memory, by the machine that would be taken."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.core.world import ManualClock
from vmrun.core.clouds import CloudError, Fault, Market, Need, Offer
from vmrun.core.errors import CapacityError, Denied, UsageError
from vmrun.core.model import JobSpec
from vmrun.fleet.offering import Sellers
from vmrun.fleet.order import Timings
from vmrun.fleet.search import ruled_out
from vmrun.job import MARKETS
from vmrun.provisioners.fake import FakeCloud
from vmrun.settings import load_settings
from vmrun.submit.options import decide
from vmrun.submit.plan import Circumstances, creations, make_plan, plan_of
from vmrun.submit.prepare import Submission
from vmrun.submit.request import SubmitRequest

GB = 10**9
SMALL = Offer("fake", "small", "r", "z", "x86_64", vcpus=4, cores=2, memory=8 * GB, usd_per_hour=1.0)
LARGE = replace(SMALL, instance_type="large", vcpus=64, memory=512 * GB, usd_per_hour=5.0)


def submission(kind: str = "map", **said: object) -> Submission:
    options = decide(SubmitRequest(**said), {}, {}, load_settings(), "job")  # type: ignore[arg-type]
    return Submission(JobSpec(options.name, kind, None, "3.11", tasks=1, shard_size=1), options)


def test_the_plan_names_workers_and_threads_of_the_machine_that_would_be_taken() -> None:
    plan = make_plan(submission(), [LARGE, SMALL], Timings())
    assert (plan.workers, plan.threads, plan.task_memory) == (4, 1, 0)
    plan = make_plan(submission(threads_per_task=2), [LARGE, SMALL], Timings())
    assert (plan.workers, plan.threads) == (2, 2)


def test_a_machine_on_which_no_task_fits_is_not_taken() -> None:
    plan = make_plan(submission(task_memory=16 * GB), [SMALL, LARGE], Timings())
    assert [offer["instance_type"] for offer in plan.offers] == ["large"]
    assert (plan.workers, plan.threads, plan.usd_per_hour) == (31, 2, 5.0)
    with pytest.raises(UsageError, match="not one task fits"):
        make_plan(submission(task_memory=16 * GB), [SMALL], Timings())


def test_a_program_has_all_cores_unless_said_otherwise() -> None:
    assert make_plan(submission("command"), [SMALL], Timings()).threads == 0
    assert make_plan(submission("command", threads_per_task=3), [SMALL], Timings()).threads == 3


def test_offers_of_several_clouds_are_ranked_together() -> None:
    cheap, unknown = replace(SMALL, on="other", usd_per_hour=0.5), replace(SMALL, usd_per_hour=None)
    spot = replace(LARGE, spot=True, usd_per_hour=3.0)
    plan = make_plan(submission(market="spot-with-fallback"), [unknown, LARGE, cheap, spot, SMALL], Timings())
    shown = [(offer["on"], offer["instance_type"], offer["usd_per_hour"]) for offer in plan.offers]
    assert shown == [
        ("fake", "large", 3.0),
        ("other", "small", 0.5),
        ("fake", "small", 1.0),
        ("fake", "large", 5.0),
        ("fake", "small", None),
    ]
    assert plan.usd_per_hour == 3.0


def need(market: str | None, header: str | None, decorator: str | None, default: str) -> Market:
    settings = load_settings({"defaults.market": default})
    said = [{} if one is None else {"market": one} for one in (header, decorator)]
    return decide(SubmitRequest(market=market), said[0], said[1], settings, "job").need.market


def test_the_market_is_said_by_a_flag_or_the_header_or_the_decorator_or_the_settings() -> None:
    assert need("on-demand", "spot", "spot", "spot") is Market.on_demand
    assert need(None, "spot-with-fallback", "spot", "spot") is Market.spot_with_fallback
    assert need(None, None, "spot", "on-demand") is Market.spot
    assert need(None, None, None, "spot") is Market.spot
    assert tuple(market.value for market in Market) == MARKETS


# --- what would be made, and what is left out ---

CLOUD = {"public_ip": True, "disk": 100 * GB, "security_group": "office"}


def sellers(*clouds: FakeCloud) -> Sellers:
    by_name = {cloud.name: cloud for cloud in clouds}
    names = tuple(by_name)
    return Sellers(ManualClock(), random.Random(1), by_name.__getitem__, lambda on: names if on == "auto" else (on,))


def test_a_plan_of_a_cloud_says_what_would_be_made_there() -> None:
    assert make_plan(submission(), [SMALL], Timings()).creates == ()
    plan = make_plan(submission(disk=200 * GB), [SMALL], Timings(), Circumstances(table=CLOUD))
    assert plan.creates == (
        "one instance small in z",
        "its boot disk of 200 GB, deleted with it",
        "a public address, given back with it",
        "keys for this instance alone; none is kept at the cloud",
        "in the network of office, which is there",
    )
    private = {**CLOUD, "public_ip": False, "proxy_jump": "me@gate"}
    assert "no public address, reached through me@gate" in creations(SMALL, Need(), private)
    assert creations(replace(SMALL, spot=True), Need(), CLOUD)[0] == "one spot instance small in z"


def test_what_is_known_to_be_unavailable_comes_last_and_says_why() -> None:
    known = ruled_out(SMALL, CloudError("no", fault=Fault.stockout), 1000.0)
    plan = make_plan(submission(), [SMALL, LARGE], Timings(), Circumstances(known, now=1120.0))
    assert [(offer["instance_type"], offer["skipped"]) for offer in plan.offers] == [
        ("large", None),
        ("small", "stockout 2m 00s ago"),
    ]
    assert plan.usd_per_hour == LARGE.usd_per_hour


def test_a_plan_over_all_clouds_is_bounded_by_the_first_offers_cloud_and_names_those_left_out(tmp_path: Path) -> None:
    settings = replace(load_settings({"store.url": "s3://bucket/prefix"}), cache_dir=tmp_path)
    dear, cheap, closed = (
        FakeCloud(ManualClock(), random.Random(1), name=on, offers=[replace(SMALL, on=on, usd_per_hour=price)])
        for on, price in (("dear", 2.0), ("cheap", 1.0), ("closed", 0.5))
    )
    closed.fail("offers", Fault.permission)
    bounds = {"dear": Timings(lease=1.0), "cheap": Timings(lease=2.0)}
    plan = plan_of(submission(on="auto"), sellers(dear, cheap, closed), settings, bounds.__getitem__)
    assert [offer["on"] for offer in plan.offers] == ["cheap", "dear"]
    assert ("lease", 2.0) in plan.deadlines
    assert [(each["on"], each["fault"]) for each in plan.left_out] == [("closed", "permission")]
    closed.fail("offers", Fault.permission)
    with pytest.raises(Denied):
        plan_of(submission(on="closed"), sellers(closed), settings, lambda on: Timings())


def test_a_market_that_no_offer_is_of_is_said() -> None:
    with pytest.raises(CapacityError, match="nothing on local fits"):
        make_plan(submission(market="spot"), [SMALL], Timings())


def test_a_plan_without_any_offer_is_an_error_unless_there_is_nothing_to_run(tmp_path: Path) -> None:
    with pytest.raises(CapacityError, match="nothing on local fits this job"):
        make_plan(submission(), [], Timings())
    empty = submission()
    nothing = replace(empty, spec=replace(empty.spec, tasks=0))
    assert make_plan(nothing, [], Timings()).offers == []


@pytest.mark.parametrize(
    ("said", "message", "hint"),
    [
        ({"memory": 90 * 10**12}, "nothing on ec2 fits 90 TB of memory", "the nearest is u7in-32tb.224xlarge on ec2"),
        (
            {"region": "eu-west-1"},
            "nothing on ec2 fits this job in eu-west-1",
            "only in `regions` of [ec2] in vmrun.toml",
        ),
        ({"instance_type": "r6a.32xlarg"}, "nothing on ec2 fits r6a.32xlarg", "did you mean r6a.32xlarge?"),
    ],
)
def test_what_no_cloud_has_is_told_with_a_way_out(said: dict[str, object], message: str, hint: str) -> None:
    with pytest.raises(CapacityError) as caught:
        make_plan(submission(on="ec2", **said), [], Timings())
    assert caught.value.message == message
    assert hint in caught.value.hint


def test_a_store_that_machines_cannot_see_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    far = FakeCloud(ManualClock(), random.Random(1), name="far", offers=[replace(SMALL, on="far")])
    mounting = replace(far.capabilities, mounts=True)
    near = FakeCloud(
        ManualClock(), random.Random(1), name="near", capabilities=mounting, offers=[replace(SMALL, on="near")]
    )
    here = replace(load_settings({"store.url": f"file://{tmp_path}"}), cache_dir=tmp_path)
    there = replace(load_settings({"store.url": "s3://bucket/prefix"}), cache_dir=tmp_path)
    with pytest.raises(UsageError, match="a machine on far cannot see the store file://") as caught:
        plan_of(submission(on="far"), sellers(far), here, lambda on: Timings())
    assert "store.url" in caught.value.hint
    assert plan_of(submission(on="far"), sellers(far), there, lambda on: Timings()).offers
    assert plan_of(submission(on="near"), sellers(near), here, lambda on: Timings()).offers
