"""One pass: the clouds are listed first, then the store is read, then each VM is judged, and what must go goes."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace

from vmrun.core import keys
from vmrun.core.clouds import Instance, InstanceNotFound, InstanceState
from vmrun.core.errors import StoreError, VmrunError
from vmrun.core.heartbeats import read_heartbeat
from vmrun.core.ids import born, is_id
from vmrun.core.ledger import VmLedger
from vmrun.core.views import Verdict
from vmrun.fleet.deck import Deck, OnStage, Session
from vmrun.fleet.retire import retire

from .leftovers import LeftoverSweep
from .policies import ORPHAN_GRACE, Observed, doubtful, judge, ours, vanished

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
        self._leftovers = LeftoverSweep(deck)

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
        try:
            facts += self._unseen(set(seen), listed, dry_run=dry_run)
        except StoreError as error:
            on_stage(f"VMs that no cloud shows were not judged: {error.message}")
        self._sightings = {vm: sighting for vm, sighting in self._sightings.items() if vm in seen}
        verdicts = self._act(facts, dry_run=dry_run, everything=everything, on_stage=on_stage)
        alive = {vm for vm, (_, each) in seen.items() if each.state is not InstanceState.gone}
        return verdicts + self._leftovers.sweep(listed, alive, dry_run=dry_run, on_stage=on_stage)

    def _observe(self, vm: str, on: str, instance: Instance | None) -> Observed:
        desk = self._deck.desk
        facts = Observed(vm, on, instance, None, desk.clock.now(), dead_after=self._dead_after)
        ledger = VmLedger(desk, vm)
        try:
            fold = ledger.refresh()
            beat = read_heartbeat(desk.store, vm, desk.keyring) if fold.ready is not None else None
        except StoreError as error:
            log.error("event=journal-not-read vm=%s error=%s", vm, error.message)
            return replace(facts, unreadable=True)
        if fold.intent is None:
            return facts
        facts = replace(facts, fold=fold, seen=ledger.seen)
        if fold.ready is None or instance is None:
            return facts
        counter, now = (-1 if beat is None else beat.counter), desk.clock.monotonic()
        before = self._sightings.get(vm)
        if before is None or before.counter != counter:
            before = Sighting(counter, now)
        suspected = (before.suspected_since if before.suspected_since is not None else now) if fold.suspected else None
        self._sightings[vm] = replace(before, suspected_since=suspected)
        contested = suspected is not None and now - suspected >= CONTEST
        busy = beat.busy if beat is not None else ""
        return replace(facts, silent=now - before.since, contested=contested, busy=busy)

    def _unseen(self, seen: set[str], listed: list[str], *, dry_run: bool) -> list[Observed]:
        """VMs that the store knows and the clouds do not show."""
        facts = []
        for entry in self._deck.desk.store.list(keys.VMS_INDEX):
            vm = entry.key[len(keys.VMS_INDEX) :]
            if vm in seen or not is_id(vm):
                continue
            found = self._observe(vm, "", None)
            if found.fold is not None and found.fold.intent is not None and found.fold.intent.on in listed:
                facts.append(replace(found, on=found.fold.intent.on))
            elif found.fold is None and not found.unreadable and found.now - born(vm) > ORPHAN_GRACE and not dry_run:
                # Its client died before it intended anything; should it still try, it finds the id burnt.
                self._forget(vm, "never intended")
        return facts

    def _act(self, facts: list[Observed], *, dry_run: bool, everything: bool, on_stage: OnStage) -> list[Verdict]:
        verdicts: list[Verdict] = []
        alive = [each for each in facts if each.instance is not None]
        left = len(alive) if everything else max(CAP, int(len(alive) * CAP_SHARE))
        unsure = doubtful(facts)
        if unsure:
            on_stage("most VMs look dead: rather this computer or the store is not well, so none is taken for dead")
        for each in facts:
            verdict = self._verdict(replace(each, contested=False) if unsure else each, everything=everything)
            if verdict.delete and left <= 0:
                reason = f"{verdict.reason}; left for the next pass, because this one deleted its share"
                verdict = replace(verdict, delete=False, reason=reason)
            left -= verdict.delete
            verdicts.append(verdict)
            try:
                if not dry_run:
                    self._carry_out(each, verdict, on_stage)
            except VmrunError as error:
                on_stage(f"{each.vm}: {verdict.policy} could not be carried out: {error.message}")
        return verdicts

    def _verdict(self, facts: Observed, *, everything: bool) -> Verdict:
        if (reason := vanished(facts)) is not None:
            return Verdict(facts.vm, facts.on, "vanished", delete=False, reason=reason)
        judged = ("all", "asked for") if everything and facts.instance is not None else judge(facts)
        if judged is None:
            return Verdict(facts.vm, facts.on, "keep", delete=False, reason=self._reason(facts))
        policy, reason = judged
        return Verdict(facts.vm, facts.on, policy, delete=True, reason=reason)

    def _carry_out(self, facts: Observed, verdict: Verdict, on_stage: OnStage) -> None:
        if verdict.policy == "vanished":
            self._close(facts, verdict.reason)
        elif verdict.delete:
            self._delete(facts, f"{verdict.policy}: {verdict.reason}", on_stage)
        elif _silent(facts) and facts.fold is not None and not facts.fold.suspected:
            # Said aloud, so that its agent can answer.
            VmLedger(self._deck.desk, facts.vm).suspect("reaper")

    def _reason(self, facts: Observed) -> str:
        """Why it is kept."""
        if _silent(facts):
            return f"suspected: no sign of life for {facts.silent:.0f} s; its agent may still answer"
        if facts.unreadable:
            return "its journal cannot be read or trusted, so nothing counts but its maximum lifetime"
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
        self._deck.provisioner(facts.on).delete(facts.instance.id)

    def _close(self, facts: Observed, evidence: str) -> None:
        """Note that a VM is gone, once its cloud says so when asked for this very one too: a listing may lag."""
        assert facts.fold is not None
        assert facts.fold.intent is not None
        try:
            found = self._deck.provisioner(facts.on).get(facts.fold.cloud_id or facts.fold.intent.name)
        except InstanceNotFound:
            found = None
        if found is None or found.state is InstanceState.gone:
            self._forget(facts.vm, evidence)

    def _forget(self, vm: str, evidence: str) -> None:
        ledger = VmLedger(self._deck.desk, vm)
        ledger.delete(evidence, "reaper")
        ledger.gone(evidence)
        self._deck.desk.store.delete(keys.vm_index(vm))
        Session.of(self._deck, vm).remove()


def _silent(facts: Observed) -> bool:
    return facts.silent is not None and facts.silent >= facts.dead_after
