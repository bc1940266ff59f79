"""Budgets at submit: of the job, of the day, of the month."""

from __future__ import annotations

import dataclasses
import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from tests.unit.core.world import DEPLOYMENT, JOB, job_spec
from tests.unit.fleet.world import Fleet
from vmrun.core import keys
from vmrun.core.clouds import Market, Offer
from vmrun.core.errors import BudgetError
from vmrun.core.ids import new_id
from vmrun.core.ledger import JobLedger
from vmrun.core.records import Final, Submit
from vmrun.fleet.losses import Losses
from vmrun.settings import load_settings
from vmrun.submit.money import (
    Period,
    check_money,
    check_period,
    keep_to_budget,
    left_to_spend,
    periods,
    pool_line,
    price_line,
)
from vmrun.submit.options import decide
from vmrun.submit.publish import publish
from vmrun.submit.request import SubmitRequest
from vmrun.watch.spending import ON_ITS_WAY, Outlay, outlay

OFFER = Offer("fake", "huge", "r", "r-a", "x86_64", 2, 1, 2**33, 2.0)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def settings(tmp_path: Path, **budget: Any) -> Any:
    overrides = {f"budget.{name}": value for name, value in budget.items()}
    return load_settings(overrides, environ={"HOME": str(tmp_path)}, cwd=tmp_path)


def options(tmp_path: Path, **said: Any) -> Any:
    return decide(SubmitRequest(**said), {}, {}, settings(tmp_path), "a job")


def bare(offer: Offer) -> float | None:
    return offer.usd_per_hour


def test_periods_are_those_of_utc_that_have_a_budget() -> None:
    now = dt.datetime(2026, 11, 26, 15, 0, tzinfo=dt.UTC).timestamp()
    day, month = periods(now, 10.0, 200.0)
    assert day == Period("day", dt.datetime(2026, 11, 26, tzinfo=dt.UTC).timestamp(), 10.0)
    assert month == Period("month", dt.datetime(2026, 11, 1, tzinfo=dt.UTC).timestamp(), 200.0)
    assert periods(now, 0.0, 0.0) == []
    assert [period.name for period in periods(now, 0.0, 5.0)] == ["month"]


def test_a_budget_that_is_used_up_or_would_be() -> None:
    period = Period("month", 0.0, 200.0)
    check_period(period, Outlay(199.0), 0.0)
    check_period(period, Outlay(150.0), 50.0)
    with pytest.raises(
        BudgetError, match=r"up to \$51.00 does not fit .* \$150.00 of this month's \$200.00 are"
    ) as caught:
        check_period(period, Outlay(150.0), 51.0)
    assert "--max-cost 50.00 fits" in caught.value.hint
    with pytest.raises(BudgetError, match=r"used up: \$200.00 of this month's \$200.00") as caught:
        check_period(period, Outlay(200.0), 0.0)
    assert "budget.usd_per_month" in caught.value.hint


def test_what_jobs_that_run_may_still_cost_is_not_there_for_others() -> None:
    period = Period("day", 0.0, 200.0)
    check_period(period, Outlay(100.0, 50.0), 50.0)
    with pytest.raises(BudgetError, match=r"\$100.00 of this day's .* that run or wait may cost \$50.00"):
        check_period(period, Outlay(100.0, 50.0), 51.0)
    with pytest.raises(BudgetError, match="used up"):
        check_period(period, Outlay(100.0, 100.0), 0.0)


def test_what_was_spent_is_read_from_the_journals(fleet: Fleet, tmp_path: Path) -> None:
    fleet.vm(JOB)
    fleet.clock.sleep(1800)  # half a dollar

    def check(offer: Offer = OFFER, **budget: Any) -> None:
        check_money(options(tmp_path), [offer], bare, settings(tmp_path, **budget), fleet.desk)

    check(usd_per_day=0.6)
    check()
    with pytest.raises(BudgetError, match=r"\$0.50 of this day's \$0.40 are spent"):
        check(usd_per_day=0.4)
    with pytest.raises(BudgetError, match=r"\$0.50 of this month's \$0.40 are spent"):
        check(usd_per_month=0.4)
    # What costs nothing is not refused, and needs no look at the store
    check(dataclasses.replace(OFFER, usd_per_hour=0.0), usd_per_day=0.4)
    # What was spent yesterday is not of today
    fleet.clock.sleep(2 * 86400)
    with pytest.raises(BudgetError, match="this month's"):
        check(usd_per_day=23.0, usd_per_month=23.0)


def test_a_job_that_runs_has_its_limit_promised(tmp_path: Path, fleet: Fleet) -> None:
    vm = fleet.vm(JOB)
    assert fleet.ledger(vm).assign("k" * 26, 0.0, 3.0)
    fleet.clock.sleep(1800)

    def due() -> float:
        return outlay(fleet.desk(), 0.0).promised

    assert due() == pytest.approx(2.5, abs=0.01)
    with pytest.raises(BudgetError, match=r"\$0.50 of this day.* are spent, and jobs that run or wait may cost \$2.50"):
        check_money(options(tmp_path), [OFFER], bare, settings(tmp_path, usd_per_day=2.0), fleet.desk)
    # What has ended costs nothing more
    assert fleet.ledger(vm).drain("no work", jobs=2)
    assert due() == 0.0
    limitless = fleet.vm(JOB)
    assert due() == 0.0
    assert fleet.ledger(limitless).assign("k" * 26, 0.0, 300.0)
    fleet.clock.sleep(86400 * 2)
    assert due() == 0.0


def a_job(fleet: Fleet, max_cost: float) -> str:
    """A job that was submitted just now, and has no machine yet."""
    job = new_id(fleet.clock, fleet.rng)
    publish(fleet.desk(), DEPLOYMENT, job, dataclasses.replace(job_spec(tasks=4), max_cost=max_cost))
    return job


def test_a_job_that_waits_for_its_machine_has_its_limit_promised(tmp_path: Path, fleet: Fleet) -> None:
    job, said, limits = a_job(fleet, 3.0), options(tmp_path, max_cost=2.5), settings(tmp_path, usd_per_day=5.0)
    with pytest.raises(BudgetError, match=r"\$2.50 does not fit .* jobs that run or wait may cost \$3.00"):
        check_money(said, [OFFER], bare, limits, fleet.desk)
    # Its machine promises it from then on
    fleet.vm(job, max_cost=3.0)
    assert outlay(fleet.desk(), 0.0).promised == pytest.approx(3.0, abs=0.01)
    # Of several machines those that are on their way count as well
    shared = a_job(fleet, 4.0)
    fleet.vm(shared, max_cost=2.0)
    assert outlay(fleet.desk(), 0.0).promised == pytest.approx(7.0, abs=0.01)
    assert JobLedger(fleet.desk(), shared).finish(Final("done", 4, 0))
    assert outlay(fleet.desk(), 0.0).promised == pytest.approx(5.0, abs=0.01)
    assert fleet.ledger(next(vm for vm in fleet.running if shared in fleet.ledger(vm).fold.jobs)).delete("over", "x")
    # What was given up, and what nobody gets a machine for any more, promises nothing
    assert JobLedger(fleet.desk(), a_job(fleet, 1.0)).finish(Final("failed", 0, 0))
    assert JobLedger(fleet.desk(), a_job(fleet, 1.0)).cancel("user")
    a_job(fleet, 0.0)
    forgotten = a_job(fleet, 1.0)
    assert outlay(fleet.desk(), 0.0).promised == pytest.approx(4.0, abs=0.01)
    assert outlay(fleet.desk(), 0.0, forgotten).promised == pytest.approx(3.0, abs=0.01)
    fleet.clock.sleep(ON_ITS_WAY + 60)
    assert outlay(fleet.desk(), 0.0).promised < 3.0


def test_of_two_jobs_that_looked_at_the_budget_at_once_one_is_let_in(tmp_path: Path, fleet: Fleet) -> None:
    said, limits = options(tmp_path, max_cost=3.0), settings(tmp_path, usd_per_day=5.0)
    # Given two that found all of it there
    for _ in range(2):
        check_money(said, [OFFER], bare, limits, fleet.desk)
    one, other = a_job(fleet, 3.0), a_job(fleet, 3.0)
    # Then the first that looks again sees the other one, and gives way
    with pytest.raises(BudgetError, match="does not fit"):
        keep_to_budget(limits, fleet.desk(), one, 3.0)
    keep_to_budget(limits, fleet.desk(), other, 3.0)
    ended = JobLedger(fleet.desk(), one).refresh().final
    assert ended is not None
    assert (ended.outcome, ended.code) == ("failed", "budget")
    assert JobLedger(fleet.desk(), other).refresh().final is None
    # Without a budget, or a limit of its own, nothing is looked at
    keep_to_budget(settings(tmp_path), fleet.desk(), other, 300.0)
    keep_to_budget(limits, fleet.desk(), other, 0.0)


def test_no_more_is_promised_than_a_machine_can_cost_until_it_ends(fleet: Fleet) -> None:
    vm = fleet.vm(JOB, lifetime=7200.0)
    assert fleet.ledger(vm).assign("k" * 26, 0.0, 300.0)
    assert outlay(fleet.desk(), 0.0).promised == pytest.approx(2.0, abs=0.01)
    fleet.clock.sleep(3600)
    assert outlay(fleet.desk(), 0.0).promised == pytest.approx(1.0, abs=0.01)


def test_a_limit_of_the_job_is_judged_without_a_budget(tmp_path: Path) -> None:
    unknown = dataclasses.replace(OFFER, usd_per_hour=None)

    def check(**said: Any) -> None:
        check_money(options(tmp_path, **said), [unknown], bare, settings(tmp_path), lambda: pytest.fail("no look"))

    check()
    check(max_cost=5.0, allow_unknown_price=True)
    with pytest.raises(BudgetError, match="is not known"):
        check(max_cost=5.0)


def test_a_budget_lets_nothing_be_rented_whose_price_is_not_known(tmp_path: Path, fleet: Fleet) -> None:
    unknown = dataclasses.replace(OFFER, usd_per_hour=None)

    def check(*offers: Offer, **said: Any) -> None:
        check_money(options(tmp_path, **said), offers, bare, settings(tmp_path, usd_per_day=5.0), fleet.desk)

    with pytest.raises(BudgetError, match="is not known") as caught:
        check(unknown)
    assert "allow_unknown_price" in caught.value.hint
    check(unknown, allow_unknown_price=True)
    check(unknown, OFFER)


def test_the_price_that_is_told_before(tmp_path: Path) -> None:
    spot = dataclasses.replace(OFFER, usd_per_hour=0.5, spot=True)
    said = options(tmp_path, max_lifetime=7200.0)
    assert price_line(said, [spot, OFFER], bare) == "huge on fake costs $2.0000 an hour, at most $4.00 in all"
    assert price_line(options(tmp_path, max_cost=3.0, market=Market.spot), [spot, OFFER], bare) == (
        "spot huge on fake costs $0.5000 an hour, at most $3.00 in all"
    )
    assert price_line(said, [dataclasses.replace(OFFER, usd_per_hour=0.0)], bare) == ""
    assert price_line(said, [], bare) == ""
    assert "not known" in price_line(said, [dataclasses.replace(OFFER, usd_per_hour=None)], bare)


def test_of_a_pool_it_is_told_what_it_costs_and_that_this_is_no_limit(tmp_path: Path) -> None:
    said = options(tmp_path, max_lifetime=7200.0)
    limit = "(no limit: VMs that are lost or too old are made anew, and a job that runs at the end ends first)"
    # However long one of its VMs may live
    assert pool_line(said, [OFFER], bare, 2, seconds=8 * 3600.0, span="until the pool ends") == (
        f"2 machines: huge on fake costs $2.0000 an hour each, about $32.00 until the pool ends {limit}"
    )
    assert pool_line(said, [OFFER], bare, seconds=36000.0, span="a week") == (
        f"huge on fake costs $2.0000 an hour, about $20.00 a week {limit}"
    )
    free, unknown = (dataclasses.replace(OFFER, usd_per_hour=usd) for usd in (0.0, None))
    assert pool_line(said, [free], bare, seconds=60.0, span="a week") == ""
    assert "not known" in pool_line(said, [unknown], bare, seconds=60.0, span="a week")


def test_a_second_machine_gets_what_the_first_left(fleet: Fleet) -> None:
    ledger = JobLedger(fleet.desk(), JOB)
    assert ledger.submit(Submit(JOB, job_spec(tasks=4), DEPLOYMENT))
    assert left_to_spend(fleet.desk(), JOB, 0.0) == 0.0
    assert left_to_spend(fleet.desk(), JOB, 2.0) == 2.0
    fleet.vm(JOB)
    fleet.clock.sleep(1800)
    assert left_to_spend(fleet.desk(), JOB, 2.0) == pytest.approx(1.5, abs=0.01)
    fleet.clock.sleep(7200)
    with pytest.raises(BudgetError, match=r"has cost \$2.50 of the \$2.00"):
        left_to_spend(fleet.desk(), JOB, 2.0)
    final = ledger.refresh().final
    assert final is not None
    assert (final.outcome, final.code) == ("failed", "budget")


def test_a_limit_is_decided_like_every_option(tmp_path: Path) -> None:
    assert decide(SubmitRequest(), {"max_cost": 3.0}, {"max_cost": 4.0}, settings(tmp_path), "a").max_cost == 3.0
    assert decide(SubmitRequest(), {}, {"allow_unknown_price": True}, settings(tmp_path), "a").allow_unknown_price


def test_a_machine_that_was_lost_before_it_began_has_cost_the_job_too(fleet: Fleet) -> None:
    assert JobLedger(fleet.desk(), JOB).submit(Submit(JOB, job_spec(tasks=4), DEPLOYMENT))
    vm = fleet.vm(JOB)
    fleet.clock.sleep(1800)
    # As whoever finds it gone does: nothing lists it any more, and no shard was claimed by it
    assert fleet.ledger(vm).gone("taken back")
    fleet.memory.delete(keys.vm_index(vm))
    assert left_to_spend(fleet.desk(), JOB, 2.0) == 2.0
    known = Losses(lambda: fleet.deck)
    assert known.take_on(JOB, [vm])
    assert left_to_spend(fleet.desk(), JOB, 2.0, known.vms(JOB)) == pytest.approx(1.5, abs=0.01)
