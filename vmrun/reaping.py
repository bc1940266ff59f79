"""Passes of the reaper over a deployment: which clouds it goes to, and the pools that it keeps up on the way."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import TYPE_CHECKING

from .core.errors import StoreError
from .core.views import Verdict
from .fleet.presence import NEAR
from .registry import provisioner_names
from .wiring import Wiring

if TYPE_CHECKING:
    from .pools import Pools
    from .reaper.sweep import Reaper


class Reaping:
    """The passes of one client."""

    def __init__(self, wiring: Wiring, pools: Callable[[], Pools]) -> None:
        self._wiring = wiring
        self._pools = pools
        self._reaper: Reaper | None = None

    def sweep(
        self,
        on_stage: Callable[[str], None],
        *,
        dry_run: bool,
        everything: bool,
        stopping: Callable[[], bool] | None,
        among: Container[str] | None,
    ) -> list[Verdict]:
        """One pass; what it found of each machine. `stopping` is asked between steps, by a service only."""
        from .reaper.sweep import Reaper

        # The same one in every pass: it believes only what it saw itself.
        self._reaper = self._reaper or Reaper(self._wiring.deck, self._wiring.timings("local").dead_after)
        self._reaper.stopping = stopping
        names = self._clouds(self._reaper, on_stage)
        if everything and not dry_run:
            # Otherwise the next pass would make their VMs anew.
            self._pools().want_nothing()
        verdicts = self._reaper.sweep(names, dry_run=dry_run, everything=everything, on_stage=on_stage, among=among)
        self._pools().keep_up(self._reaper.deck, on_stage, background=stopping is not None, dry_run=dry_run)
        return verdicts

    def _clouds(self, reaper: Reaper, on_stage: Callable[[str], None]) -> list[str]:
        """Where machines of this deployment may be: what the store knows of, what is near, and what is configured."""
        used = {*NEAR, *self._wiring.configured()}
        try:
            used |= reaper.drivers()
        except StoreError as error:
            on_stage(f"the store does not tell which clouds are in use: {error.message}")
        return [name for name in provisioner_names() if name in used]
