"""What a submission would do and cost, told without doing it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vmrun.core.clouds import Need, Offer
from vmrun.core.crew import Asked, Crew, crew_of, fits, refusal
from vmrun.core.units import format_duration, format_size
from vmrun.core.views import Plan
from vmrun.fleet.explain import explain, nothing_fits, row
from vmrun.fleet.memory import Memory
from vmrun.fleet.offering import Sellers, find_offers, ranked
from vmrun.fleet.order import Timings
from vmrun.fleet.search import RuledOut, Tried, in_turn, known_of
from vmrun.fleet.sight import check_sight
from vmrun.settings import Settings
from vmrun.watch.observe import cost_at_most

from .options import Options
from .prepare import Submission


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is known beside the offers."""

    #: What other searches found unavailable.
    known: Sequence[RuledOut] = ()
    #: Clouds that could not be asked.
    failures: Sequence[Tried] = ()
    #: Seconds since the epoch.
    now: float = 0.0
    #: The table in the configuration of the driver that would be used.
    table: Mapping[str, Any] = field(default_factory=dict)


NOTHING_KNOWN = Circumstances()


def plan_of(submission: Submission, sellers: Sellers, settings: Settings, timings: Callable[[str], Timings]) -> Plan:
    """The plan of a submission, by what the clouds offer now and what is remembered of them.

    Raises what explains why there is no offer at all, and UsageError for a store that machines cannot see.
    """
    options = submission.options
    offers, failures = find_offers(sellers, options.on, options.need)
    if failures and not offers:
        raise explain(options.on, options.need, failures, "")
    if submission.spec.total:
        check_sight(sellers, offers, settings.store.url)
    now = sellers.clock.now()
    known = Memory(settings.cache_dir).recall(now)
    # Each cloud's machines have bounds of their own: those of the first offer hold.
    on = next((offer.on for offer in in_turn(ranked(offers, options.need), known)), options.on)
    return make_plan(submission, offers, timings(on), Circumstances(known, failures, now, settings.driver_table(on)))


def make_plan(
    submission: Submission, offers: Sequence[Offer], timings: Timings, around: Circumstances = NOTHING_KNOWN
) -> Plan:
    """The plan of a submission that could have `offers`, in any order.

    Raises UsageError when no task fits on any of them, CapacityError when there is none; a job without tasks
    needs none.
    """
    options, need = submission.options, submission.options.need
    tries = in_turn(ranked(offers, need), around.known)
    if submission.spec.total and not tries:
        most = max((offer.memory for offer in offers), default=0)
        too_small = offers and not fits(most, need.task_memory)
        raise refusal(most, need.task_memory) if too_small else nothing_fits(options.on, need)
    first = tries[0] if tries else None
    asked = Asked(options.workers, options.threads_per_task, need.task_memory)
    crew = crew_of(first.vcpus, first.memory, asked) if first else Crew(options.workers, options.threads_per_task, "")
    deadlines = [("boot grace", timings.boot_grace), ("lease", timings.lease)]
    deadlines += [("maximum lifetime", options.max_lifetime)]
    deadlines += [("keep-warm window", options.keep_warm)] if options.keep_warm else []
    deadlines += [("hold on failure", options.keep_on_failure)] if options.keep_on_failure else []
    deadlines += [("task timeout", options.task_timeout)] if options.task_timeout else []
    return Plan(
        tasks=submission.spec.total,
        on=options.on,
        offers=[_data(offer, around) for offer in tries],
        creates=creations(first, need, around.table) if first else (),
        left_out=[row(each) for each in around.failures],
        vms=submission.spec.vms,
        usd_per_hour=first.usd_per_hour * submission.spec.vms if first and first.usd_per_hour is not None else None,
        usd_at_most=_at_most(first, options, submission.spec.vms) if first else None,
        deadlines=tuple(deadlines),
        workers=crew.workers,
        # A program that is a task of its own has all cores, unless the user said otherwise.
        threads=options.threads_per_task if submission.spec.kind in ("script", "command") else crew.threads,
        task_memory=need.task_memory,
        memory=submission.sized.memory if submission.sized else 0,
        memory_why=submission.sized.why if submission.sized else "",
    )


def _at_most(offer: Offer, options: Options, vms: int) -> float | None:
    """Dollars that so many machines alone cost at most; None for an unknown price."""
    most = cost_at_most(offer.usd_per_hour, options.max_lifetime * vms)
    return min(most, options.max_cost) if most is not None and options.max_cost else most


def creations(offer: Offer, need: Need, table: Mapping[str, Any]) -> tuple[str, ...]:
    """What would be made at the cloud and what would be used of what is there; nothing for a driver without clouds.

    `table` is the driver's own in the configuration.
    """
    if "public_ip" not in table:
        return ()
    spot = "spot " if offer.spot else ""
    disk = max(need.disk, int(table.get("disk") or 0))
    jump = f", reached through {table['proxy_jump']}" if table.get("proxy_jump") else ""
    group = next((table[key] for key in ("security_group", "network", "vpc") if table.get(key)), "")
    return (
        f"one {spot}instance {offer.instance_type} in {offer.zone or offer.region}",
        f"its boot disk of {format_size(disk)}, deleted with it",
        "a public address, given back with it" if table["public_ip"] else f"no public address{jump}",
        "keys for this instance alone; none is kept at the cloud",
        f"in the network of {group}, which is there" if group else "in the network that `vmrun doctor` shows",
    )


def _data(offer: Offer, around: Circumstances) -> dict[str, Any]:
    known = known_of(offer, around.known)
    return {
        "on": offer.on,
        "instance_type": offer.instance_type,
        "region": offer.region,
        "zone": offer.zone,
        "arch": offer.arch,
        "vcpus": offer.vcpus,
        "cores": offer.cores,
        "memory_gib": round(offer.memory / 2**30, 2),
        "usd_per_hour": offer.usd_per_hour,
        "spot": offer.spot,
        "priced_at": offer.priced_at,
        "skipped": f"{known.fault.value} {format_duration(around.now - known.at)} ago" if known else None,
    }
