"""Another machine for a job whose machine is lost: whether there is to be one, and which. Decisions only.

A spot machine is lost in the ordinary course of things, so what bounds its replacements is what bounds the job: its
money, its time, and a number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from vmrun.core.clouds import Fault, Market
from vmrun.core.errors import BudgetError, CapacityError
from vmrun.core.folds import LEFT, JobFold, VmFold
from vmrun.core.units import format_duration

from .order import Order
from .search import RULES, RuledOut

#: Machines of one job that are replaced at most.
REPLACEMENTS_MAX = 20
#: Spot machines that a job loses before it is given one on demand, if it may have one.
SPOT_LOSSES_MAX = 2
#: Seconds after which who took on a replacement, and has not begun it, is taken for dead.
PATIENCE = 90.0
#: Seconds of a machine's life that must be left for it to be worth renting.
LEAST = 60.0
#: How reasons begin for which a machine ended as it was meant to.
_MEANT = ("all:", "expired:", "over_budget:", "maximum cost", "maximum lifetime")


def losses(folds: Iterable[VmFold], job: str) -> list[VmFold]:
    """The machines among them that were ready for the job and have left it, the latest last.

    One that could not be made ready is no loss: its search has dealt with it.
    """
    found = [fold for fold in folds if fold.ready is not None and job in fold.jobs and fold.phase in LEFT]
    return sorted(found, key=lambda fold: fold.ready_at)


def after_losses(order: Order, lost: Sequence[VmFold], now: float, until: float = float("inf")) -> Order:
    """The order for another machine after these; `now` in seconds since the epoch.

    What passed after `until`, seconds since the epoch, is taken off its lifetime already.
    Raises CapacityError after too many, and BudgetError when what the job's machines may live is used up.
    """
    if not lost:
        return order
    if len(lost) > REPLACEMENTS_MAX:
        raise CapacityError(
            f"job {order.job} has lost {len(lost)} machines",
            hint="--on-demand machines are not taken back; `vmrun why VM` tells how each of these ended",
        )
    left = order.max_lifetime - _lived(lost, order.job, min(now, until))
    if left < LEAST:
        raise BudgetError(
            f"job {order.job} has had machines for the {format_duration(order.max_lifetime)} that it may",
            hint=f"`vmrun result {order.job}` has what had finished; submit it again with a higher --max-lifetime",
        )
    return replace(fallen_back(order, lost), max_lifetime=left)


def fallen_back(order: Order, lost: Iterable[VmFold]) -> Order:
    """The order, for a machine on demand if it may have one and so many of the `lost` ones were spot machines."""
    taken = sum(1 for fold in lost if fold.intent is not None and fold.intent.spot)
    if order.need.market is Market.spot_with_fallback and taken >= SPOT_LOSSES_MAX:
        return replace(order, need=replace(order.need, market=Market.on_demand))
    return order


def _lived(lost: Iterable[VmFold], job: str, now: float) -> float:
    """Seconds before `now` in which at least one of them lived for the job."""
    seconds = until = 0.0
    spans = [(fold.given_at[fold.jobs.index(job)], fold.drained_at or fold.gone_at or now) for fold in lost]
    for begin, end in sorted((begin, min(end, now)) for begin, end in spans):
        seconds += max(0.0, end - max(begin, until))
        until = max(until, end)
    return seconds


def short_of(lost: Iterable[VmFold], now: float) -> list[RuledOut]:
    """The spot offers that were taken back: for a while others come first."""
    return [
        RuledOut(
            on=intent.on,
            region=intent.region,
            zone=intent.zone,
            instance_type=intent.instance_type,
            bucket="",
            spot=True,
            fault=Fault.preempted,
            at=now,
            until=now + RULES[Fault.preempted].remembered,
        )
        for intent in (fold.intent for fold in lost)
        if intent is not None and intent.spot
    ]


# --- one of several ---


def is_loss(fold: VmFold, job: str) -> bool:
    """Whether a machine that is no more was lost to the job: it had begun to work, and nobody meant it to end."""
    ended = [fold.drain.reason] if fold.drain is not None else []
    ended += [fold.delete.why] if fold.delete is not None else []
    worked = fold.ready is not None and fold.jobs[-1:] == [job]
    return worked and not any(why.startswith(_MEANT) for why in ended)


def unmet(job: JobFold, folds: Mapping[str, VmFold], serves: Callable[[VmFold], bool]) -> dict[str, str]:
    """Lost machines that somebody took on to replace, and in whose places there are none, nor any on their way.

    Each with the machine that was listed in its place and came to nothing, "" for none. `folds` are all machines of
    the job, by id, those that are not listed yet too.
    """
    found: dict[str, str] = {}
    for vm in job.replaced:
        successor = job.replacements.successors.get(vm, "")
        fold = folds.get(successor)
        if not successor or (fold is not None and fold.ready is None and not serves(fold)):
            found[vm] = successor
    coming = sum(1 for vm, fold in folds.items() if vm not in job.vms and serves(fold))
    return dict(list(found.items())[coming:])


def is_met(job: JobFold, vm: str, folds: Mapping[str, VmFold]) -> bool:
    """Whether the machine that came in the place of a lost one was made ready: its own loss would be a new one."""
    fold = folds.get(job.replacements.successors.get(vm, ""))
    return fold is not None and fold.ready is not None
