"""Whether there is a machine for a submission, and money for it: found out before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vmrun.core.clouds import Need, Offer
from vmrun.core.crew import fits, refusal
from vmrun.core.errors import UsageError
from vmrun.core.growth import GROW
from vmrun.core.ledger import Desk
from vmrun.fleet.explain import explain
from vmrun.fleet.offering import Sellers, find_offers
from vmrun.fleet.sight import check_sight
from vmrun.settings import Settings

from .money import check_money, price_line
from .options import Options
from .prepare import Submission

Priced = Callable[[Need], Callable[[Offer], float | None]]
#: From options, offers, their prices and a number of VMs to what people are told of the price.
Told = Callable[[Options, Sequence[Offer], Callable[[Offer], float | None], int], str]


def check_machine(
    submission: Submission, sellers: Sellers, priced: Priced, settings: Settings, desk: Callable[[], Desk]
) -> str:
    """What the first choice costs, for people; "" for nothing.

    Raises what explains that no machine of that kind could do it, or that it may not be paid for. `desk` is opened
    only if there is a budget to look at.
    """
    if submission.spec.tasks == 0 and submission.spec.kind != "open":
        return ""
    check_growth(submission.options)
    told = check_offers(submission.options, sellers, priced, settings, desk)
    submission.costs = bool(told)
    return told


def check_growth(options: Options) -> None:
    """Refuse what cannot move to a larger machine though it is to."""
    if options.on_oom == GROW and options.need.instance_type:
        raise UsageError(
            f"--on-oom grow: a job that must run on {options.need.instance_type[:80]} cannot move to a larger machine",
            hint="leave out --instance-type and ask for --cpus and --memory, or take --on-oom fail",
        )
    if options.on_oom == GROW and (options.vms > 1 or options.replace_lost):
        raise UsageError(
            "--on-oom grow is for a job of one machine",
            hint="leave out --vms and --replace-lost, or take --on-oom fail",
        )


def check_offers(
    options: Options,
    sellers: Sellers,
    priced: Priced,
    settings: Settings,
    desk: Callable[[], Desk],
    told: Told = price_line,
) -> str:
    """The same for what is asked for, whatever is to run there; `told` puts the price into words."""
    need = options.need
    offers, failures = find_offers(sellers, options.on, need)
    if not offers:
        raise explain(options.on, need, failures, "")
    check_sight(sellers, offers, settings.store.url)
    check_money(options, offers, priced(need), settings, desk, options.vms)
    most = max(offer.memory for offer in offers)
    if not fits(most, need.task_memory):
        raise refusal(most, need.task_memory)
    return told(options, offers, priced(need), options.vms)
