"""Whether a submission may be paid for: its own limit, and that of the whole deployment by day and by month."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from vmrun.core.clouds import Offer
from vmrun.core.errors import BudgetError
from vmrun.core.ledger import Desk, JobLedger
from vmrun.core.records import Final
from vmrun.core.views import JobView
from vmrun.fleet.budget import affordable
from vmrun.fleet.offering import ranked
from vmrun.settings import Settings
from vmrun.watch.observe import JobObserver
from vmrun.watch.spending import Outlay, outlay

from .options import Options

#: Dollars an hour for what an offer is, with disk and address; None where that is not known.
PriceOf = Callable[[Offer], float | None]


@dataclass(frozen=True, slots=True)
class Period:
    """A span of the calendar, by UTC, in which a budget holds."""

    name: str
    #: Seconds since the epoch.
    since: float
    dollars: float


def check_money(
    options: Options,
    offers: Sequence[Offer],
    priced: Callable[[Offer], float | None],
    settings: Settings,
    desk: Callable[[], Desk],
    vms: int = 1,
) -> None:
    """Refuse, before anything is written, what is too dear by its own limit or by the deployment's.

    The job's own limit must pay for all of its `vms` machines.
    `desk` is opened only if there is a budget and something to pay. Raises BudgetError.
    """
    fitting = affordable(
        offers,
        options.max_cost / vms,
        priced,
        allow_unknown=options.allow_unknown_price,
        budgeted=settings.budget.holds,
    )
    if settings.budget.holds and any(priced(offer) != 0 for offer in fitting):
        _check_periods(settings, desk(), options.max_cost)


def _check_periods(settings: Settings, desk: Desk, max_cost: float, without: str = "") -> None:
    budget = settings.budget
    for period in periods(desk.clock.now(), budget.usd_per_day, budget.usd_per_month):
        check_period(period, outlay(desk, period.since, without), max_cost)


def keep_to_budget(settings: Settings, desk: Desk, job: str, max_cost: float) -> None:
    """Judge a job with a limit once more when it is written: what was written at the same time is seen by now.

    Of two that looked at the budget before the other one stood there, at least one sees the other. Raises BudgetError,
    with the job ended, if both are too much.
    """
    if not (settings.budget.holds and max_cost):
        return
    try:
        _check_periods(settings, desk, max_cost, job)
    except BudgetError as error:
        JobLedger(desk, job).finish(Final("failed", 0, 0, error.message, error.hint, error.code))
        raise


def price_line(options: Options, offers: Sequence[Offer], priced: PriceOf, vms: int = 1) -> str:
    """What the first choice among the offers costs, for people, before it is rented; "" for a free one."""
    what, usd = _first_choice(options, offers, priced)
    if not usd:
        return _unpriced(what, usd)
    most = usd * options.max_lifetime * vms / 3600
    most = min(most, options.max_cost) if options.max_cost else most
    return f"{_rate(what, usd, vms)}, at most ${most:.2f} in all"


def pool_line(
    options: Options, offers: Sequence[Offer], priced: PriceOf, vms: int = 1, *, seconds: float, span: str
) -> str:
    """The same for a pool that is up for `seconds` of the time that `span` names.

    That is what it costs, and no limit: VMs are replaced, and a job may go on beyond the end.
    """
    what, usd = _first_choice(options, offers, priced)
    if not usd:
        return _unpriced(what, usd)
    dollars = usd * seconds * vms / 3600
    more = "no limit: VMs that are lost or too old are made anew, and a job that runs at the end ends first"
    return f"{_rate(what, usd, vms)}, about ${dollars:.2f} {span} ({more})"


def _first_choice(options: Options, offers: Sequence[Offer], priced: PriceOf) -> tuple[str, float | None]:
    """What it is called, and dollars an hour; 0 if there is none."""
    first = next(iter(ranked(offers, options.need)), None)
    if first is None:
        return "", 0.0
    return f"{'spot ' if first.spot else ''}{first.instance_type} on {first.on}", priced(first)


def _unpriced(what: str, usd: float | None) -> str:
    return f"{what}: its price is not known" if usd is None else ""


def _rate(what: str, usd: float, vms: int) -> str:
    several, each = (f"{vms} machines: ", " each") if vms > 1 else ("", "")
    return f"{several}{what} costs ${usd:.4f} an hour{each}"


def periods(now: float, usd_per_day: float, usd_per_month: float) -> list[Period]:
    """The periods that have a budget and in which `now` is."""
    day = dt.datetime.fromtimestamp(now, dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    found = [
        Period("day", day.timestamp(), usd_per_day),
        Period("month", day.replace(day=1).timestamp(), usd_per_month),
    ]
    return [period for period in found if period.dollars]


def check_period(period: Period, so_far: Outlay, max_cost: float) -> None:
    """Raise BudgetError if the period's budget is spent or promised, or would be by a job that costs all it may."""
    key = f"`budget.usd_per_{period.name}` in vmrun.toml"
    left = period.dollars - so_far.spent - so_far.promised
    figures = f"${so_far.spent:.2f} of this {period.name}'s ${period.dollars:.2f} are spent"
    figures += f", and jobs that run or wait may cost ${so_far.promised:.2f} more" if so_far.promised >= 0.005 else ""
    if left <= 0:
        raise BudgetError(f"the budget is used up: {figures}", hint=f"wait for the next {period.name}, or raise {key}")
    if max_cost > left:
        raise BudgetError(
            f"a job of up to ${max_cost:.2f} does not fit into the budget: {figures}",
            hint=f"--max-cost {left:.2f} fits; or raise {key}",
        )


def left_to_spend(desk: Desk, job: str, max_cost: float, vms: Iterable[str] = ()) -> float:
    """Dollars that a job may still cost, 0 for no limit. Raises BudgetError, with the job ended, if none are left.

    `vms` are machines that it is known to have had: one that ended before it claimed any task stands in no journal of
    the job.
    """
    if not max_cost:
        return 0.0
    observer = JobObserver(desk, job)
    observer.expected.update(vms)
    view = observer.look()
    if view.usd < max_cost:
        return max_cost - view.usd
    raise _end(observer.ledger, view, max_cost)


def _end(ledger: JobLedger, view: JobView, max_cost: float) -> BudgetError:
    error = BudgetError(
        f"job {view.id} has cost ${view.usd:.2f} of the ${max_cost:.2f} that it may",
        hint=f"`vmrun result {view.id}` has what had finished; submit it again with a higher --max-cost",
    )
    ledger.finish(Final("failed", view.tasks.done, view.tasks.failed, error.message, error.hint, error.code))
    return error
