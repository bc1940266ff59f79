"""The part of a pass that is about what machines left behind: disks, addresses, whatever the clouds list."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace

from vmrun.core.clouds import Leftover
from vmrun.core.errors import StoreError, VmrunError
from vmrun.core.views import Verdict
from vmrun.core.vm_ledger import VmLedger
from vmrun.fleet.deck import Deck, OnStage
from vmrun.fleet.leftovers import vm_of

from .policies import abandoned

log = logging.getLogger(__name__)

#: Leftovers that one pass discards, and tries to: of those that their cloud keeps, none stands in another's way.
CAP, TRIES = 20, 100
POLICY = "leftover"


class LeftoverSweep:
    """Judges leftovers by their age, by the end of their VM, or by how long it has seen them itself."""

    def __init__(self, deck: Deck) -> None:
        self._deck = deck
        #: By driver and identifier: when it was first seen, on the monotonic clock.
        self._first_seen: dict[tuple[str, str], float] = {}

    def sweep(self, clouds: Iterable[str], alive: set[str], *, dry_run: bool, on_stage: OnStage) -> list[Verdict]:
        """The verdicts on all leftovers of `clouds` whose VM is not `alive`, those that were kept included.

        What does not bear this deployment's name is not touched. A cloud that cannot list them gets no verdict.
        """
        verdicts: list[Verdict] = []
        present: set[tuple[str, str]] = set()
        left, tries = CAP, TRIES
        for on in clouds:
            for leftover, vm in self._found(on, alive, on_stage):
                present.add((on, leftover.id))
                verdict = self._judge(leftover, vm)
                if verdict.delete and min(left, tries) <= 0:
                    reason = f"{verdict.reason}; left for the next pass, because this one deleted its share"
                    verdict = replace(verdict, delete=False, reason=reason)
                verdicts.append(verdict)
                tries -= verdict.delete
                left -= verdict.delete and (dry_run or self._discarded(leftover, on_stage))
        self._first_seen = {key: since for key, since in self._first_seen.items() if key in present}
        return verdicts

    def _found(self, on: str, alive: set[str], on_stage: OnStage) -> list[tuple[Leftover, str]]:
        try:
            listed = list(self._deck.provisioner(on).leftovers(self._deck.deployment))
        except VmrunError as error:
            on_stage(f"{on}: leftovers were not judged, because they could not be listed: {error.message}")
            return []
        named = [(each, vm_of(each, self._deck.deployment)) for each in listed]
        return [(each, vm) for each, vm in named if vm and vm not in alive]

    def _judge(self, leftover: Leftover, vm: str) -> Verdict:
        clock = self._deck.desk.clock
        since = self._first_seen.setdefault((leftover.on, leftover.id), clock.monotonic())
        age = clock.now() - leftover.created_at if leftover.created_at else None
        reason = abandoned(age, clock.monotonic() - since, ended=self._has_ended(vm))
        what = f"{leftover.kind} {leftover.id}"
        if reason is None:
            return Verdict(vm, leftover.on, POLICY, delete=False, reason=f"{what}: its VM may still be on its way")
        return Verdict(vm, leftover.on, POLICY, delete=True, reason=f"{what}: {reason}")

    def _has_ended(self, vm: str) -> bool:
        try:
            return VmLedger(self._deck.desk, vm).refresh().ended
        except StoreError as error:
            log.warning("event=journal-not-read vm=%s error=%s", vm, error.message)
            return False

    def _discarded(self, leftover: Leftover, on_stage: OnStage) -> bool:
        try:
            self._deck.provisioner(leftover.on).discard(leftover)
        except VmrunError as error:
            on_stage(f"{leftover.kind} {leftover.id} could not be given back: {error.message}")
            return False
        return True
