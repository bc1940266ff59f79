"""What a submission would do and cost, told without doing it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vmrun.catalog.ranking import rank
from vmrun.core.clouds import Offer
from vmrun.core.crew import Asked, Crew, crew_of, fits, refusal
from vmrun.core.views import Plan
from vmrun.fleet.order import Timings
from vmrun.watch.observe import cost_at_most

from .prepare import Submission


def make_plan(submission: Submission, offers: Iterable[Offer], timings: Timings) -> Plan:
    """The plan of a submission that could have `offers`, in any order."""
    options = submission.options
    ranked = rank(offers)
    task_memory = options.need.task_memory
    fitting = [offer for offer in ranked if fits(offer.memory, task_memory)]
    if ranked and not fitting:
        raise refusal(max(offer.memory for offer in ranked), task_memory)
    first = fitting[0] if fitting else None
    asked = Asked(options.workers, options.threads_per_task, task_memory)
    crew = crew_of(first.vcpus, first.memory, asked) if first else Crew(options.workers, options.threads_per_task, "")
    deadlines = [("boot grace", timings.boot_grace), ("lease", timings.lease)]
    deadlines += [("maximum lifetime", options.max_lifetime)]
    deadlines += [("keep-warm window", options.keep_warm)] if options.keep_warm else []
    deadlines += [("task timeout", options.task_timeout)] if options.task_timeout else []
    return Plan(
        tasks=submission.spec.total,
        on=options.on,
        offers=[_data(offer) for offer in fitting],
        usd_per_hour=first.usd_per_hour if first else None,
        usd_at_most=cost_at_most(first, options.max_lifetime) if first else None,
        deadlines=tuple(deadlines),
        workers=crew.workers,
        # A program that is a task of its own has all cores, unless the user said otherwise.
        threads=options.threads_per_task if submission.spec.kind in ("script", "command") else crew.threads,
        task_memory=task_memory,
    )


def _data(offer: Offer) -> dict[str, Any]:
    return {
        "on": offer.on,
        "instance_type": offer.instance_type,
        "region": offer.region,
        "arch": offer.arch,
        "vcpus": offer.vcpus,
        "cores": offer.cores,
        "memory_gib": round(offer.memory / 2**30, 2),
        "usd_per_hour": offer.usd_per_hour,
        "spot": offer.spot,
        "priced_at": offer.priced_at,
    }
