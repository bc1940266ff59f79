"""Pools of one deployment: wanted, kept up, looked at, taken down."""

from __future__ import annotations

import logging
import subprocess
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

from .background import spawn
from .core.clouds import Market, Need
from .core.errors import UsageError, VmrunError
from .core.pool_records import PoolSpec
from .core.pools import PoolLedger, check_pool, pool_names
from .core.views import PoolView
from .fleet.deck import Deck
from .fleet.membership import members_of
from .fleet.order import Order
from .fleet.pooling import Changes, Member, Steps, changed, counts, up_for, up_from, up_until
from .fleet.pools import keep_up, take_down
from .settings import Settings
from .settings.directories import check_directories
from .submit.machine import check_offers
from .submit.money import pool_line
from .submit.options import Options, decide
from .submit.order import with_packages
from .submit.request import SubmitRequest
from .wiring import Wiring

log = logging.getLogger(__name__)
OnStage = Callable[[str], None]

#: Seconds after a failed attempt to make VMs in the background in which there is no other one.
AGAIN_AFTER = 300.0
#: Times that somebody else may change a pool while it is looked up what a change costs.
CHANGES_MAX = 5


@dataclass
class _Making:
    """A process in the background that makes a pool's VMs."""

    process: subprocess.Popen[bytes]
    since: float


class Pools:
    """What can be done with the pools of one deployment."""

    def __init__(self, wiring: Wiring, settings: Settings) -> None:
        self._wiring = wiring
        self._settings = settings
        self._making: dict[str, _Making] = {}

    def up(self, name: str, changes: Changes, on_stage: OnStage, on_price: OnStage) -> PoolView:
        """Want the pool as `changes` say, and make what is missing. Safe to call again.

        Raises UsageError for a pool that would have no end or is taken down meanwhile, and what getting a machine
        raises; what is wanted then stays so, and the next pass of a reaper tries again.
        """
        check_directories(self._settings)
        desk = self._wiring.desk
        ledger = PoolLedger(desk, name)
        for _ in range(CHANGES_MAX):
            known = ledger.refresh().wanted
            wanted = changed(known or self._defaults(), changes, desk.clock.now())
            price = self._check(wanted)
            # Prices and offers take seconds to look up: what somebody said meanwhile is neither undone nor passed over.
            if ledger.change(wanted, known):
                break
            if known is not None and ledger.refresh().wanted is None:
                raise UsageError(
                    f"pool {name} was taken down meanwhile", hint="`vmrun status` shows what is left of it"
                )
        else:
            raise UsageError(f"pool {name} is changed by somebody else all the time", hint="try again")
        if price:
            on_price(price)
        self._wiring.on_stage = on_stage
        keep_up(self._wiring.deck, name, self._order, _in_turn(on_stage))
        return self.view(name)

    def down(self, name: str, on_stage: OnStage, patience: float) -> PoolView:
        """Want nothing of it any more; VMs that work end with their job, the others are seen to go."""
        desk = self._wiring.desk
        if check_pool(name) not in pool_names(desk):
            raise UsageError(f"there is no pool {name!r}", hint="`vmrun status` lists the pools")
        take_down(self._wiring.deck, name, on_stage, patience)
        return self.view(name)

    def want_nothing(self) -> None:
        """Take all pools down without seeing to their VMs: these are about to be deleted."""
        for name in self.names():
            PoolLedger(self._wiring.desk, name).want(None)

    def names(self) -> list[str]:
        """Pools that are wanted, or have VMs still. Raises StoreError."""
        return pool_names(self._wiring.desk)

    def keep_up(self, deck: Deck, on_stage: OnStage, *, background: bool, dry_run: bool) -> None:
        """One pass over all pools, as a part of the reaper's. Says what cannot be done, and raises nothing for it.

        `deck` is the reaper's: its clock says what time it is. With `background` VMs are made by other processes: a
        service has VMs to end meanwhile.
        """
        try:
            names = self.names()
        except VmrunError as error:
            on_stage(f"the pools were not looked at: {error.message}")
            return
        for name in names:
            try:
                self._keep_up(deck, name, on_stage, background=background, dry_run=dry_run)
            except VmrunError as error:
                on_stage(f"pool {name}: {error.message}")

    def _keep_up(self, deck: Deck, name: str, on_stage: OnStage, *, background: bool, dry_run: bool) -> None:
        if dry_run:
            view = self._view(deck, name)
            missing = view.size - view.ready - view.busy - view.starting if view.state == "up" else 0
            if missing > 0:
                on_stage(f"pool {name}: {missing} of {view.size} VMs would be made")
            return
        self._wiring.on_stage = on_stage
        done = keep_up(deck, name, self._order, _in_turn(on_stage), make=not background)
        if background and done.missing:
            self._make_in_background(name, done, on_stage)

    def _make_in_background(self, name: str, found: Steps, on_stage: OnStage) -> None:
        now, before = self._wiring.clock.monotonic(), self._making.get(name)
        if before is not None:
            code = before.process.poll()
            if code is None or (code != 0 and now - before.since < AGAIN_AFTER):
                return
        on_stage(f"pool {name}: making {found.missing} of its VMs")
        self._making[name] = _Making(spawn(self._settings, ("up", name), f"pool-{name}"), now)

    def views(self) -> list[PoolView]:
        """All pools, by name; what cannot be read is left out."""
        found = []
        for name in self.names():
            try:
                found.append(self.view(name))
            except VmrunError as error:
                log.warning("event=pool-not-read pool=%s error=%s", name, error.message)
        return found

    def view(self, name: str) -> PoolView:
        """One pool as it stands."""
        return self._view(self._wiring.deck, name)

    # --- parts ---

    def _view(self, deck: Deck, name: str) -> PoolView:
        state, now = PoolLedger(deck.desk, name).refresh(), deck.desk.clock.now()
        there = [each for each in members_of(deck, state) if counts(each, now)]
        return view_pool(name, state.wanted, there, now)

    def _defaults(self) -> PoolSpec:
        defaults = self._settings.defaults
        need = Need(defaults.cpus, defaults.memory, 0, defaults.disk, defaults.arch, market=Market(defaults.market))
        return PoolSpec(defaults.on, need, size=1, max_lifetime=defaults.max_lifetime)

    def _options(self, wanted: PoolSpec) -> Options:
        options = decide(SubmitRequest(on=wanted.on), {}, {}, self._settings, "pool")
        return replace(options, need=wanted.need, vms=wanted.size, max_lifetime=wanted.max_lifetime, max_cost=0.0)

    def _check(self, wanted: PoolSpec) -> str:
        """What it costs, for people. Raises what explains that there is none, or that it may not be paid for."""
        wiring = self._wiring
        seconds, span = up_for(wanted, wiring.desk.clock.now())
        told = partial(pool_line, seconds=seconds, span=span)
        options, settings = self._options(wanted), self._settings
        return check_offers(options, wiring.sellers, wiring.priced, settings, lambda: wiring.desk, told)

    def _order(self, wanted: PoolSpec) -> Order:
        self._check(wanted)
        order = Order(
            job="",
            on=wanted.on,
            need=wanted.need,
            python="",
            max_lifetime=wanted.max_lifetime,
            allow_unknown_price=self._settings.defaults.allow_unknown_price,
            budgeted=self._settings.budget.holds,
            timings=self._wiring.timings(wanted.on),
            # Whatever comes may need packages.
            needs_packages=True,
        )
        return with_packages(order, self._settings)


def view_pool(name: str, wanted: PoolSpec | None, there: Iterable[Member], now: float) -> PoolView:
    """What people are shown of a pool whose VMs are `there`."""
    there = list(there)
    ready = [each for each in there if each.fold is not None and each.fold.ready is not None]
    busy = [each for each in ready if each.busy]
    view = PoolView(
        name,
        "down",
        ready=len(ready) - len(busy),
        busy=len(busy),
        starting=len(there) - len(ready),
        vms=tuple(each.vm for each in there),
    )
    if wanted is None:
        return view
    ends, begins = up_until(wanted, now), up_from(wanted, now)
    return replace(
        view,
        state="up" if ends else "waiting" if begins else "ended",
        on=wanted.on,
        size=wanted.size,
        schedule=wanted.schedule,
        until=wanted.until,
        ends_at=ends,
        begins_at=begins,
    )


def _in_turn(on_stage: OnStage) -> OnStage:
    """Several threads tell one listener."""
    lock = threading.Lock()

    def tell(text: str) -> None:
        with lock:
            on_stage(text)

    return tell
