"""What a VM costs by its journal, and when its job's money is spent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.core.world import JOB, OTHER_JOB, VM, intent, ready
from vmrun.core.errors import UsageError
from vmrun.core.folds import VmFold
from vmrun.core.money import LEAVE, billed, hourly, paid_until, spent_on, stop_at
from vmrun.core.records import Assign, Created, Drain, Entry, Failed, Gone, Record
from vmrun.core.units import parse_money

T = 1_000_000.0
MADE = replace(
    intent(VM), usd_per_hour=3.0, disk_usd_per_hour=0.5, address_usd_per_hour=0.1, hard_deadline=T + 7200, max_cost=1.8
)


def fold(*events: tuple[float, Record], made: Any = MADE) -> VmFold:
    found = VmFold()
    for number, (after, body) in enumerate(((0.0, made), *events)):
        writer = f"vm:{VM}" if isinstance(body, Drain) else "client"
        found.apply(Entry(number, writer, "", T + after, body))
    return found


def test_the_price_holds_what_is_known_of_disk_and_address() -> None:
    assert hourly(MADE) == pytest.approx(3.6)
    assert hourly(replace(MADE, disk_usd_per_hour=None)) == pytest.approx(3.1)
    assert hourly(replace(MADE, usd_per_hour=None)) is None


LIVES = {
    "running": (fold((60, Created("i"))), 60, 1000),
    "at its hard deadline": (fold((60, Created("i")), made=replace(MADE, hard_deadline=T + 500)), 60, 500),
    "gone": (fold((60, Created("i")), (400, Gone("seen"))), 60, 400),
    "took its leave": (fold((60, Created("i")), (300, Drain("no work"))), 60, 1000),
    "took its leave, which ends it": (
        fold((60, Created("i")), (300, Drain("no work")), made=replace(MADE, poweroff_deletes=True)),
        60,
        300 + LEAVE,
    ),
    "nobody knows whether it was created": (fold(), 0, 900),
    "never seen": (fold((200, Gone("never created"))), 0, 200),
    "refused": (fold((1, Failed("quota", "no"))), None, None),
}


@pytest.mark.parametrize("name", LIVES)
def test_from_when_to_when_it_is_counted(name: str) -> None:
    found, begin, end = LIVES[name]
    first, last = billed(found, T + 1000)
    assert (last - first) == (0 if begin is None else end - begin)
    if begin is not None:
        assert first == T + begin


def test_each_job_pays_for_its_own_time() -> None:
    found = fold((60, Created("i")), (70, ready()), (500, Assign(OTHER_JOB, max_cost=9.0)))
    assert spent_on(found, JOB, T + 1000) == pytest.approx(3.6 * 440 / 3600)
    assert spent_on(found, OTHER_JOB, T + 1000) == pytest.approx(3.6 * 500 / 3600)
    assert spent_on(found, "another", T + 1000) == 0.0


def test_the_money_is_counted_from_when_the_job_was_given() -> None:
    assert paid_until(fold()) == T + 1800
    assert stop_at(fold()) == T + 1740
    later = fold((60, Created("i")), (70, ready()), (500, Assign(OTHER_JOB, max_cost=0.36)))
    assert paid_until(later) == T + 500 + 360
    assert stop_at(later) == T + 500 + 324
    # Little money leaves little time for saving, but half of it at most
    assert stop_at(fold(made=replace(MADE, max_cost=0.003))) == pytest.approx(T + 1.5)
    assert stop_at(fold(made=replace(MADE, max_cost=0.01))) == pytest.approx(T + 8.0)


def test_without_limit_or_price_nothing_is_spent_up() -> None:
    assert paid_until(fold(made=replace(MADE, max_cost=0.0))) is None
    assert stop_at(fold(made=replace(MADE, usd_per_hour=None))) is None
    free = replace(MADE, usd_per_hour=0.0, disk_usd_per_hour=0.0, address_usd_per_hour=0.0)
    assert paid_until(fold(made=free)) is None
    assert paid_until(fold((60, Created("i")), (70, ready()), (80, Assign(OTHER_JOB)))) is None


@pytest.mark.parametrize(("text", "dollars"), [("25", 25.0), ("$2.50", 2.5), (" 0.01 ", 0.01), (7, 7.0), (1.5, 1.5)])
def test_money_parses_as_people_write_it(text: Any, dollars: float) -> None:
    assert parse_money(text) == dollars


@pytest.mark.parametrize("text", ["", "-1", "1e3", "nan", "25 EUR", "1,000", float("inf"), -2])
def test_what_is_no_money(text: Any) -> None:
    with pytest.raises(UsageError, match="no amount of dollars"):
        parse_money(text, "--max-cost")
