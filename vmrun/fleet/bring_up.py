"""From an order to a machine whose agent works: warm if there is one, otherwise the first offer that can be had."""

from __future__ import annotations

import logging
from dataclasses import replace

from vmrun.core.clouds import CloudError, Fault, Offer
from vmrun.core.errors import CapacityError
from vmrun.core.units import format_duration

from .attempt import Attempt
from .budget import affordable, price
from .deck import Deck, OnStage
from .explain import explain
from .memory import Memory
from .offering import Sellers, find_offers, ranked
from .order import Order
from .search import RuledOut, Search
from .warm import take_warm

log = logging.getLogger(__name__)

#: Skipped offers that a person is told of one by one.
_SKIPPED_TOLD = 5


def bring_up(deck: Deck, order: Order, on_stage: OnStage) -> str:
    """A machine for the order's job, its agent let in; the VM's id.

    Raises CapacityError, Denied or UsageError with what was tried, and Unreachable for a machine that runs and does
    not answer: then another one is not likely to do better, and would cost as much. Nothing that was made stays
    behind.
    """
    warm = take_warm(deck, order)
    if warm is not None:
        on_stage(f"taking the warm VM {warm}")
        return warm
    return rent(deck, order, on_stage)


def rent(deck: Deck, order: Order, on_stage: OnStage, out: list[RuledOut] | None = None) -> str:
    """A new machine for the order's job; as `bring_up`, but no warm one.

    `out` is what several searches at the same time learn from each other: the offers that one of them ruled out.
    """
    sellers = Sellers(deck.desk.clock, deck.desk.rng, deck.provisioner, deck.clouds)
    found, failures = find_offers(sellers, order.on, order.need)
    offers = affordable(
        found,
        order.max_cost,
        lambda offer: price(offer, deck.extras(offer, order.need)),
        allow_unknown=order.allow_unknown_price,
        budgeted=order.budgeted,
    )
    memory = Memory(deck.cache_dir)
    search = Search(ranked(offers, order.need), memory.recall(deck.desk.clock.now()), out)
    search.tried += failures
    for each in failures:
        on_stage(f"{each.on} is left out: {each.message}")
    _tell_skipped(search, deck.desk.clock.now(), on_stage)
    return _Hunt(deck, order, search, memory, on_stage).run()


def _tell_skipped(search: Search, now: float, on_stage: OnStage) -> None:
    skipped = search.skipped()
    for offer, known in skipped[:_SKIPPED_TOLD]:
        on_stage(f"{described(offer)}: skipped, {known.fault.value} {format_duration(now - known.at)} ago")
    if len(skipped) > _SKIPPED_TOLD:
        on_stage(f"{len(skipped) - _SKIPPED_TOLD} more offers are skipped")


class _Hunt:
    """The offers of one search, tried one after the other."""

    def __init__(self, deck: Deck, order: Order, search: Search, memory: Memory, on_stage: OnStage) -> None:
        self._deck = deck
        self._order = order
        self._search = search
        self._memory = memory
        self._on_stage = on_stage
        self._prepared: set[str] = set()

    def run(self) -> str:
        """The VM's id. Raises what explains that there is none."""
        clock, search = self._deck.desk.clock, self._search
        began = clock.monotonic()
        cause: CloudError | None = None
        while (offer := search.next(clock.monotonic() - began)) is not None:
            try:
                self._prepare(offer.on)
                attempt = Attempt(self._deck, self._order_on(offer.on), offer, self._on_stage)
            except CloudError as error:
                cause = error
                self._failed(offer, error)
                continue
            try:
                return attempt.run()
            except CloudError as error:
                cause = error
                self._failed(offer, error)
                if not attempt.clear:
                    search.stop("stopped, because it is not certain whether the last machine was created")
        if not search.tried and search.warned:
            raise CapacityError(
                f"no further machine was to be had on {self._order.on}", hint="see why the machines before it were not"
            )
        raise explain(self._order.on, self._order.need, search.tried, search.ended) from cause

    def _prepare(self, on: str) -> None:
        if on not in self._prepared:
            with self._deck.preparing:
                self._deck.provisioner(on).prepare()
            self._prepared.add(on)

    def _order_on(self, on: str) -> Order:
        order = self._order
        return order if order.on == on else replace(order, on=on, timings=self._deck.timings(on))

    def _failed(self, offer: Offer, error: CloudError) -> None:
        now = self._deck.desk.clock.now()
        log.info("event=offer-failed type=%s zone=%s fault=%s", offer.instance_type, offer.zone, error.fault.value)
        self._memory.note(self._search.failed(offer, error, now), now)
        if error.fault in (Fault.permission, Fault.billing):
            self._on_stage(f"{offer.on} is left out: {error.message}")
        else:
            self._on_stage(f"{described(offer)}: {error.fault.value}")


def described(offer: Offer) -> str:
    """An offer in a few words."""
    spot = "spot " if offer.spot else ""
    return f"{spot}{offer.instance_type} in {offer.zone or offer.region or offer.on}"
