"""What a submission would do: workers, their threads and memory, by the machine that would be taken."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vmrun.core.clouds import Market, Offer
from vmrun.core.errors import UsageError
from vmrun.core.model import JobSpec
from vmrun.fleet.order import Timings
from vmrun.job import MARKETS
from vmrun.settings import load_settings
from vmrun.submit.options import decide
from vmrun.submit.plan import make_plan
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
    plan = make_plan(submission(), [unknown, LARGE, cheap, spot, SMALL], Timings())
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
