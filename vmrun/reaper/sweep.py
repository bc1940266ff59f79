"""One pass: the clouds are listed first, then the store is read, then each VM is judged, and what must go goes."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace

from vmrun.core import keys
from vmrun.core.clouds import Instance
from vmrun.core.errors import Corrupt, VmrunError
from vmrun.core.folds import VmFold
from vmrun.core.heartbeats import read_heartbeat
from vmrun.core.ids import is_id
from vmrun.core.ledger import VmLedger
from vmrun.core.views import Verdict
from vmrun.fleet.deck import Deck, OnStage
from vmrun.fleet.retire import retire

from .policies import Observed, judge, ours, vanished

log = logging.getLogger(__name__)

#: Deletions in one pass: at most this many, or this share of what is there, whichever is more.
CAP, CAP_SHARE = 3, 0.25
#: Seconds that a SUSPECT stands before it counts.
CONTEST = 90.0


@dataclass(frozen=True, slots=True)
class Sighting:
    """The last heartbeat that this reaper saw of a VM, and since when it has not changed."""

    counter: int
    since: float
    suspected_since: float | None = None


class Reaper:
    """Judges by what it saw itself: a reaper that just started suspects nobody yet."""

    def __init__(self, deck: Deck, dead_after: float) -> None:
        self._deck = deck
        self._dead_after = dead_after
        self._sightings: dict[str, Sighting] = {}

    def sweep(self, names: Iterable[str], *, dry_run: bool, everything: bool, on_stage: OnStage) -> list[Verdict]:
        """One pass over the clouds in `names`; the verdicts, what was kept included.

        `everything` condemns all VMs of this deployment. A cloud that cannot be listed completely gets no verdict.
        """
        seen: dict[str, tuple[str, Instance]] = {}
        listed: list[str] = []
        for on in names:
            try:
                found = list(self._deck.provisioner(on).instances(self._deck.deployment))
            except VmrunError as error:
                on_stage(f"{on}: not judged, because it could not be listed: {error.message}")
                continue
            listed.append(on)
            seen.update({vm: (on, each) for each in found if (vm := ours(each, self._deck.deployment))})
        facts = [self._observe(vm, on, instance) for vm, (on, instance) in sorted(seen.items())]
        facts += self._unseen(set(seen), listed)
        return self._act(facts, dry_run=dry_run, everything=everything, on_stage=on_stage)

    def _observe(self, vm: str, on: str, instance: Instance | None) -> Observed:
        desk = self._deck.desk
        fold, seen = self._fold(vm)
        facts = Observed(vm, on, instance, fold, desk.clock.now(), seen, dead_after=self._dead_after)
        if fold is None or fold.ready is None or instance is None:
            return facts
        beat = read_heartbeat(desk.store, vm, desk.keyring)
        counter, now = (-1 if beat is None else beat.counter), desk.clock.monotonic()
        before = self._sightings.get(vm)
        if before is None or before.counter != counter:
            before = Sighting(counter, now)
        suspected = (before.suspected_since if before.suspected_since is not None else now) if fold.suspected else None
        self._sightings[vm] = replace(before, suspected_since=suspected)
        contested = suspected is not None and now - suspected >= CONTEST
        busy = beat.busy if beat is not None else ""
        return replace(facts, silent=now - before.since, contested=contested, busy=busy)

    def _fold(self, vm: str) -> tuple[VmFold | None, int]:
        """What the VM's journal says, and how many entries it has; None if there is none that can be trusted."""
        ledger = VmLedger(self._deck.desk, vm)
        try:
            fold = ledger.refresh()
        except Corrupt as error:
            log.error("event=journal-refused vm=%s error=%s", vm, error.message)
            return None, 0
        return (fold if fold.intent is not None else None), ledger.seen

    def _unseen(self, seen: set[str], listed: list[str]) -> list[Observed]:
        """VMs that the store knows and the clouds do not show."""
        facts = []
        for entry in self._deck.desk.store.list(keys.VMS_INDEX):
            vm = entry.key[len(keys.VMS_INDEX) :]
            if vm in seen or not is_id(vm):
                continue
            fold, _ = self._fold(vm)
            if fold is not None and fold.intent is not None and fold.intent.on in listed:
                facts.append(self._observe(vm, fold.intent.on, None))
        return facts

    def _act(self, facts: list[Observed], *, dry_run: bool, everything: bool, on_stage: OnStage) -> list[Verdict]:
        verdicts: list[Verdict] = []
        alive = [each for each in facts if each.instance is not None]
        left = len(alive) if everything else max(CAP, int(len(alive) * CAP_SHARE))
        for each in facts:
            if (reason := vanished(each)) is not None:
                verdicts.append(Verdict(each.vm, each.on, "vanished", delete=False, reason=reason))
                if not dry_run:
                    self._close(each.vm, reason)
                continue
            judged = ("all", "asked for") if everything and each.instance is not None else judge(each)
            if judged is None:
                verdicts.append(
                    Verdict(each.vm, each.on, "keep", delete=False, reason=self._reason(each, dry_run=dry_run))
                )
                continue
            policy, reason = judged
            if left <= 0:
                reason = f"{reason}; left for the next pass, because this one deleted its share"
                verdicts.append(Verdict(each.vm, each.on, policy, delete=False, reason=reason))
                continue
            left -= 1
            verdicts.append(Verdict(each.vm, each.on, policy, delete=True, reason=reason))
            if not dry_run:
                self._delete(each, f"{policy}: {reason}", on_stage)
        return verdicts

    def _reason(self, facts: Observed, *, dry_run: bool) -> str:
        """Why it is kept; a VM that is silent for too long is suspected here, so that its agent can answer."""
        if facts.silent is not None and facts.silent >= facts.dead_after:
            if not dry_run and facts.fold is not None and not facts.fold.suspected:
                VmLedger(self._deck.desk, facts.vm).suspect("reaper")
            return f"suspected: no sign of life for {facts.silent:.0f} s; its agent may still answer"
        if facts.fold is None:
            return "unknown to the store, and still young"
        if facts.fold.ready is None:
            return f"{facts.fold.phase}: it is being made ready"
        return f"it works on {facts.busy}" if facts.busy else "it is kept warm"

    def _delete(self, facts: Observed, why: str, on_stage: OnStage) -> None:
        if facts.fold is not None:
            # A VM that is past its deadline goes in any case; any other only if nobody took it since it was judged.
            seen = None if why.startswith(("expired", "all")) else facts.seen
            retire(self._deck, facts.vm, why, on_stage, seen=seen)
            return
        assert facts.instance is not None
        try:
            self._deck.provisioner(facts.on).delete(facts.instance.id)
        except VmrunError as error:
            on_stage(f"{facts.instance.name} could not be deleted: {error.message}")

    def _close(self, vm: str, evidence: str) -> None:
        ledger = VmLedger(self._deck.desk, vm)
        ledger.delete(evidence, "reaper")
        ledger.gone(evidence)
        self._deck.desk.store.delete(keys.vm_index(vm))
