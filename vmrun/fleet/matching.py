"""Which of the VMs that wait for a job suits an order, and which of several is the best. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vmrun.core.clouds import Market, Need
from vmrun.core.crew import fits as holds_one
from vmrun.core.folds import VmFold
from vmrun.core.records import Intent, Ready

from .order import Order

#: Seconds of its life that must be left for a VM to be worth taking.
MARGIN = 2.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """A VM without work."""

    vm: str
    fold: VmFold


def fits(fold: VmFold, order: Order, now: float) -> bool:
    """Whether the VM can take the job, by its journal."""
    intent = fold.intent
    return (
        intent is not None
        and fold.assignable
        and fold.stays(now + MARGIN)
        and intent.on == order.on
        and now + MARGIN < intent.hard_deadline
        and fold.ready is not None
        and _can_run(fold.ready, order)
        and suits(intent, order.need)
        and (intent.usd_per_hour is not None or order.allow_unknown_price or not (order.max_cost or order.budgeted))
    )


def suits(intent: Intent, need: Need) -> bool:
    """Whether the machine is as large, of the kind and in the place that is asked for."""
    return (
        need.cpus <= intent.vcpus
        and need.memory <= intent.memory
        and holds_one(intent.memory, need.task_memory)
        and need.disk <= intent.disk
        and need.arch in ("", intent.arch)
        and need.instance_type in ("", intent.instance_type)
        and need.region in ("", intent.region)
        and need.zone in ("", intent.zone)
        and not (intent.spot and need.market is Market.on_demand)
    )


def best_first(waiting: Iterable[Waiting], order: Order) -> list[Waiting]:
    """Those that fit already, the best choice first.

    Where the job's environment is installed, it starts at once. Of those that are alike in this the smallest is taken,
    which leaves the large ones to who needs them; then the one that may live longest.
    """
    return sorted(waiting, key=lambda each: _rank(each, order))


def _rank(each: Waiting, order: Order) -> tuple[bool, int, int, float, str]:
    intent = each.fold.intent
    assert intent is not None, "only what fits is ranked"
    missing = bool(order.environment) and order.environment not in each.fold.environments
    return missing, intent.vcpus, intent.memory, -intent.hard_deadline, each.vm


def _can_run(ready: Ready, order: Order) -> bool:
    """Whether the machine, as its first job had it made ready, has what this job's environment takes."""
    if order.needs_packages:
        return ready.uv
    # A machine that is a process on this one runs a job without packages by its own interpreter, and by no other.
    return order.python in ("", ready.python) or (ready.uv and bool(ready.host))
