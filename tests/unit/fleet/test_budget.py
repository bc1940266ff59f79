"""A limit in dollars: what may be rented under it, for how long, and what the journal says of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.core.world import JOB, OTHER_JOB
from tests.unit.fleet.test_fleet import NOW as WARM_NOW
from tests.unit.fleet.test_fleet import ORDER, fold
from tests.unit.fleet.world import Fleet
from vmrun.catalog.extras import Extras, extras
from vmrun.core.clouds import Offer
from vmrun.core.errors import BudgetError
from vmrun.fleet.attempt import Attempt
from vmrun.fleet.budget import affordable, lifetime, price, told
from vmrun.fleet.matching import fits
from vmrun.fleet.warm import take_warm

GIB = 2**30


def offer(usd: float | None, **changes: Any) -> Offer:
    known = Offer("ec2", "m7i.large", "r", "r-a", "x86_64", 2, 1, 8 * GIB, usd)
    return dataclasses.replace(known, **changes)


def bare(each: Offer) -> float | None:
    return each.usd_per_hour


def test_what_a_limit_allows() -> None:
    cheap, dear, unknown = offer(1.0), offer(3600.0), offer(None)
    assert affordable([dear, unknown, cheap], 0.0, bare, allow_unknown=False) == [dear, unknown, cheap]
    assert affordable([dear, unknown, cheap], 1.0, bare, allow_unknown=False) == [cheap]
    assert affordable([dear, unknown, cheap], 25.0, bare, allow_unknown=True) == [dear, unknown, cheap]
    assert affordable([offer(0.0)], 0.01, bare, allow_unknown=False) == [offer(0.0)]
    assert affordable([], 1.0, bare, allow_unknown=False) == []
    # The deployment's budget is a limit as well
    assert affordable([dear, unknown, cheap], 0.0, bare, allow_unknown=False, budgeted=True) == [dear, cheap]
    assert affordable([dear, unknown], 0.0, bare, allow_unknown=True, budgeted=True) == [dear, unknown]


def test_what_a_limit_forbids() -> None:
    with pytest.raises(BudgetError, match=r"price of m7i\.large on ec2 is not known") as caught:
        affordable([offer(None)], 25.0, bare, allow_unknown=False)
    assert "--allow-unknown-price" in caught.value.hint
    assert caught.value.exit_code == 7
    with pytest.raises(BudgetError, match=r"\$0.1 pays for less than 5 seconds of a machine at \$3600"):
        affordable([offer(7200.0), offer(3600.0)], 0.1, bare, allow_unknown=False)


@pytest.mark.parametrize(
    ("max_cost", "usd", "seconds"),
    [(0.0, 2.0, 7200), (1.0, 2.0, 1800), (100.0, 2.0, 7200), (1.0, None, 7200), (1.0, 0.0, 7200)],
)
def test_a_machine_lives_as_long_as_is_paid_for(max_cost: float, usd: float | None, seconds: float) -> None:
    assert lifetime(dataclasses.replace(ORDER, max_lifetime=7200.0, max_cost=max_cost), usd) == seconds


def test_disk_and_address_are_part_of_the_price() -> None:
    assert price(offer(1.0), Extras(0.25, 0.05)) == pytest.approx(1.3)
    assert price(offer(1.0), Extras(None, None)) == 1.0
    assert price(offer(None), Extras(0.25, 0.05)) is None


def test_the_price_is_told() -> None:
    assert told(2.0, 1800.0) == " for $2.0000 an hour, $1.00 at most"
    assert told(0.0, 1800.0) == ""
    assert "not known" in told(None, 1800.0)


def test_the_rates_of_disks_and_addresses() -> None:
    ec2 = extras("ec2", disk=73 * GIB, address=True)
    assert ec2 == Extras(pytest.approx(0.0205 + 0.008), 0.005)
    assert extras("ec2", disk=0, address=False).address == 0.0
    assert extras("gce", disk=73 * GIB, address=True) == Extras(pytest.approx(0.01), 0.005)
    assert extras("ibm", disk=GIB, address=True) == Extras(None, None)
    assert extras("ibm", disk=GIB, address=False) == Extras(None, 0.0)
    assert extras("docker", disk=GIB, address=True) == Extras(0.0, 0.0)


# --- machines ---


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def test_the_hard_deadline_on_the_machine_and_in_its_journal_is_what_the_money_pays_for(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    deck = dataclasses.replace(fleet.deck, extras=lambda offer, need: Extras(0.5, 0.1))
    (free,) = list(deck.provisioner("fake").offers(ORDER.need))[:1]
    paid = dataclasses.replace(free, usd_per_hour=3.0)
    order = dataclasses.replace(ORDER, job=JOB, max_cost=1.8)
    stages: list[str] = []
    attempt = Attempt(deck, order, paid, stages.append)
    seen: dict[str, Any] = {}

    def make_ready(machine: object, ledger: Any, instance: Any, hard_deadline: float) -> None:
        seen.update(ledger=ledger, instance=instance, hard_deadline=hard_deadline)

    monkeypatch.setattr(attempt, "_make_ready", make_ready)
    now = fleet.clock.now()
    attempt.run()
    intent = seen["ledger"].fold.intent
    assert intent.hard_deadline == seen["hard_deadline"] == float(int(now + 1800))
    assert (intent.max_cost, intent.usd_per_hour) == (1.8, 3.0)
    assert (intent.disk_usd_per_hour, intent.address_usd_per_hour) == (0.5, 0.1)
    assert "for $3.6000 an hour, $1.80 at most" in stages[0]
    assert str(int(intent.hard_deadline)) in json.dumps(seen["instance"].tags)


def test_a_warm_vm_takes_a_job_with_its_limit(fleet: Fleet) -> None:
    warm = fleet.vm(JOB, keep_warm=60.0)
    assert fleet.ledger(warm).fold.intent.usd_per_hour is not None
    assert take_warm(fleet.deck, dataclasses.replace(ORDER, max_cost=2.5)) == warm
    assert fleet.ledger(warm).fold.max_cost == 2.5
    assert fleet.ledger(warm).fold.jobs == [JOB, OTHER_JOB]


def test_a_warm_vm_is_the_jobs_for_no_longer_than_the_job_may_have_a_machine(fleet: Fleet) -> None:
    warm = fleet.vm(JOB, keep_warm=60.0)
    assert fleet.ledger(warm).fold.job_until == 0.0
    assert take_warm(fleet.deck, dataclasses.replace(ORDER, max_lifetime=600.0)) == warm
    assert fleet.ledger(warm).fold.job_until == pytest.approx(fleet.clock.now() + 600, abs=2.0)


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({}, True),
        ({"max_cost": 1.0}, False),
        ({"budgeted": True}, False),
        ({"max_cost": 1.0, "allow_unknown_price": True}, True),
        ({"budgeted": True, "allow_unknown_price": True}, True),
    ],
)
def test_a_warm_vm_of_unknown_price_is_no_place_for_a_limit(changes: dict[str, Any], taken: bool) -> None:
    assert fits(fold(), dataclasses.replace(ORDER, **changes), WARM_NOW) is taken
