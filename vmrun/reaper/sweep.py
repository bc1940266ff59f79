"""One pass: the clouds are listed first, then the store is read, then each VM is judged, and what must go goes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterable
from dataclasses import replace

from vmrun.core import keys
from vmrun.core.clock import CLOCK_GOOD, CorrectedClock
from vmrun.core.clouds import Instance, InstanceNotFound, InstanceState
from vmrun.core.errors import ConfigError, StoreError, VmrunError
from vmrun.core.ids import born
from vmrun.core.units import format_duration
from vmrun.core.views import Verdict
from vmrun.core.vm_ledger import VmLedger
from vmrun.fleet.deck import Deck, OnStage, Session
from vmrun.fleet.guards import Case
from vmrun.fleet.removal import case_of, recorded, remove
from vmrun.fleet.retire import WATCH, ended_by, retire

from .hidden import Hidden
from .leftovers import LeftoverSweep
from .observing import CONTEST, Observer, Shown
from .policies import ORPHAN_GRACE, Observed, doubtful, judge, ours, vanished

__all__ = ["CLOSINGS", "CONTEST", "Reaper"]

log = logging.getLogger(__name__)
#: Whether somebody asked for a VM's end.
Asked = Callable[[str], bool]

#: Deletions in one pass: at most this many, or this share of what is there, whichever is more.
CAP, CAP_SHARE = 3, 0.25
#: Seconds that a pass of a service watches machines disappear: the next pass looks again.
BRIEF_WATCH = 10.0
#: VMs whose end is looked up and noted in one pass.
CLOSINGS = 200


class Reaper:
    """Judges by what it saw itself: a reaper that just started suspects nobody yet."""

    def __init__(self, deck: Deck, dead_after: float) -> None:
        #: Asked between steps whether to break off; set by a service, which passes again soon.
        self.stopping: Callable[[], bool] | None = None
        self._clock = CorrectedClock(deck.desk.clock)
        self._deck = deck = replace(deck, desk=replace(deck.desk, clock=self._clock))
        self._observer = Observer(deck, dead_after)
        self._hidden = Hidden(deck)
        self._leftovers = LeftoverSweep(deck)
        #: Whose the store said it is in this pass; None when it gave no answer.
        self._recorded: str | None = None
        #: Seconds that this pass may still watch machines disappear, and VMs whose end it may still look up.
        self._watch, self._closings = WATCH, CLOSINGS

    @property
    def deck(self) -> Deck:
        """What it works with; its clock is this computer's or, if the last pass found that one wrong, the store's."""
        return self._deck

    def drivers(self) -> set[str]:
        """The drivers that VMs of the store are on. Raises StoreError."""
        return self._observer.drivers()

    def sweep(
        self,
        names: Iterable[str],
        *,
        dry_run: bool,
        everything: bool,
        on_stage: OnStage,
        among: Container[str] | None = None,
    ) -> list[Verdict]:
        """One pass over the clouds in `names`; the verdicts, what was kept included.

        `everything` condemns all VMs of this deployment, or all `among` these. A cloud that cannot be listed completely
        gets no verdict. Raises ConfigError when the store is not this deployment's own.
        """
        self._set_clock(on_stage)
        self._recorded = recorded(self._deck)
        if self._recorded not in (self._deck.deployment, None):
            raise ConfigError(
                "the store is not this deployment's own any more, so no machine is judged",
                hint="`vmrun doctor` tells whose it is; see to store.url",
            )
        self._watch, self._closings = (WATCH if self.stopping is None else BRIEF_WATCH), CLOSINGS
        shown, listed = self._list(names, on_stage)
        looked = self._observer.look([Shown(vm, tuple(shown[vm])) for vm in sorted(shown)])
        # The journals were read after the listing: what is gone by them may have ended in between.
        went = {each.vm for each in looked if len(shown[each.vm]) == 1 and self._hidden.went(each)}
        shown = {vm: instances for vm, instances in shown.items() if vm not in went}
        # Where only a copy was found, the VM itself may be at a cloud that was not listed.
        facts = [
            replace(each, unlisted=each.instance is None and each.on not in listed)
            for each in looked
            if each.vm in shown
        ]
        try:
            facts += self._unseen(set(shown), listed, dry_run=dry_run)
        except StoreError as error:
            on_stage(f"VMs that no cloud shows were not judged: {error.message}")
        self._observer.forget_others({each.vm for each in facts})
        asked: Asked = (lambda vm: among is None or vm in among) if everything else _never
        verdicts = self._act(facts, asked, dry_run=dry_run, on_stage=on_stage)
        # Those of which nothing is known in this pass may well be there.
        alive = set(shown) | {each.vm for each in facts if each.instance is not None or each.unlisted}
        return verdicts + self._leftovers.sweep(listed, alive, dry_run=dry_run, on_stage=on_stage)

    def _set_clock(self, on_stage: OnStage) -> None:
        """Go by the store's clock if this computer's is wrong: no VM is to end early, or late, for that."""
        try:
            told = self._deck.store_time()
        except StoreError as error:
            log.warning("event=no-time error=%s", error.message)
            return  # what was found out in an earlier pass still holds
        if told is None:
            return
        ahead = self._clock.inner.now() - told
        self._clock.ahead = ahead if abs(ahead) > CLOCK_GOOD else 0.0
        if self._clock.ahead:
            side = f"{format_duration(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} the store's"
            on_stage(f"this computer's clock is {side}, so the store's is gone by; `vmrun doctor` tells more")

    def _list(self, names: Iterable[str], on_stage: OnStage) -> tuple[dict[str, list[Instance]], list[str]]:
        """The instances that say they are ours, by VM, and the clouds that were listed completely."""
        shown: dict[str, list[Instance]] = {}
        listed: list[str] = []
        for on in names:
            try:
                found = list(self._deck.provisioner(on).instances(self._deck.deployment))
            except VmrunError as error:
                on_stage(f"{on}: not judged, because it could not be listed: {error.message}")
                continue
            listed.append(on)
            for each in found:
                # What its cloud still shows as gone is gone: it comes up again among those that no cloud shows.
                if each.state is not InstanceState.gone and (vm := ours(each, self._deck.deployment)):
                    shown.setdefault(vm, []).append(each)
        return shown, listed

    def _unseen(self, shown: set[str], listed: list[str], *, dry_run: bool) -> list[Observed]:
        """VMs that the store knows and the listings do not show; some of them exist all the same."""
        facts = []
        unseen = self._observer.look([Shown(vm) for vm in self._observer.indexed() if vm not in shown])
        hidden = self._hidden.find([each for each in unseen if each.on in listed])
        facts += self._observer.look([Shown(vm, (instance,)) for vm, instance in hidden.shown.items()])
        for found in unseen:
            if found.vm in hidden.shown:
                continue
            if found.on and found.on in listed:
                facts.append(replace(found, unlisted=found.vm in hidden.unknown))
            elif found.fold is None and not found.unreadable and found.now - born(found.vm) > ORPHAN_GRACE:
                if not dry_run:
                    # Its client died before it intended anything; should it still try, it finds the id burnt.
                    self._forget(found.vm, "never intended")
            elif found.on:
                # Its cloud was not listed: what was read of it stays known.
                facts.append(replace(found, unlisted=True))
        return facts

    def _act(self, facts: list[Observed], asked: Asked, *, dry_run: bool, on_stage: OnStage) -> list[Verdict]:
        verdicts: list[Verdict] = []
        facts = [each for each in facts if not each.unlisted]
        alive = [each for each in facts if each.instance is not None]
        left = max(CAP, int(len(alive) * CAP_SHARE), sum(asked(each.vm) for each in alive))
        unsure = doubtful(facts)
        if unsure:
            on_stage("most VMs look dead: rather this computer or the store is not well, so none is taken for dead")
        for each in facts:
            if self.stopping is not None and self.stopping():
                break
            verdict = self._verdict(replace(each, contested=False) if unsure else each, asked)
            # What was decided in an earlier pass is only finished: of machines that their cloud does not delete, three
            # would otherwise keep all others from their turn, for ever.
            decided = each.fold is not None and each.fold.delete is not None
            if verdict.delete and left <= 0 and not decided:
                reason = f"{verdict.reason}; left for the next pass, because this one deleted its share"
                verdict = replace(verdict, delete=False, reason=reason)
            verdicts.append(verdict)
            try:
                if not dry_run:
                    self._carry_out(each, verdict, left, on_stage)
            except VmrunError as error:
                on_stage(f"{each.vm}: {verdict.policy} could not be carried out: {error.message}")
            left -= verdict.delete and not decided
        return verdicts

    def _verdict(self, facts: Observed, asked: Asked) -> Verdict:
        if facts.stranger:
            return Verdict(facts.vm, facts.on, "guarded", delete=False, reason=f"not touched: {facts.stranger}")
        if (reason := vanished(facts)) is not None:
            return Verdict(facts.vm, facts.on, "vanished", delete=False, reason=reason)
        meant = facts.instance is not None and not facts.unreadable and asked(facts.vm)
        judged = ("all", "asked for") if meant else judge(facts)
        if judged is None:
            return Verdict(facts.vm, facts.on, "keep", delete=False, reason=_reason(facts))
        policy, reason = judged
        return Verdict(facts.vm, facts.on, policy, delete=True, reason=reason)

    def _carry_out(self, facts: Observed, verdict: Verdict, left: int, on_stage: OnStage) -> None:
        if verdict.policy == "vanished":
            self._close(facts, verdict.reason)
        elif verdict.delete:
            self._delete(facts, f"{verdict.policy}: {verdict.reason}", left, on_stage)
        elif _silent(facts) and facts.fold is not None and not facts.fold.suspected:
            # Said aloud, so that its agent can answer.
            VmLedger(self._deck.desk, facts.vm).suspect("reaper")

    def _delete(self, facts: Observed, why: str, left: int, on_stage: OnStage) -> None:
        assert facts.instance is not None
        if facts.fold is not None and facts.fold.gone is None:
            # A VM that is past its deadline goes in any case; any other only if nobody took it since it was judged.
            seen = None if why.startswith(("expired", "all")) else facts.seen
            began = self._deck.desk.clock.monotonic()
            retire(self._deck, facts.vm, why, on_stage, seen=seen, watch=max(self._watch, 0.0), by="reaper")
            self._watch -= self._deck.desk.clock.monotonic() - began
            return
        case = self._case(facts, left)
        if facts.fold is None and not facts.unreadable:
            # Its id is burnt first: should its client only be slow, it creates nothing under it any more.
            ledger = VmLedger(self._deck.desk, facts.vm)
            ledger.delete(why, "reaper")
            if ledger.fold.intent is not None:
                return  # there is a journal by now; the next pass reads it
            case = replace(case, fold=ledger.fold)
        remove(self._deck, case, why)

    def _case(self, facts: Observed, left: int) -> Case:
        assert facts.instance is not None
        case = case_of(self._deck, facts.vm, facts.on, facts.instance, facts.fold)
        return replace(case, recorded=self._recorded, left=left)

    def _close(self, facts: Observed, evidence: str) -> None:
        """Note that a VM is gone, once its cloud says so when asked for this very one too: a listing may lag."""
        assert facts.fold is not None
        assert facts.fold.intent is not None
        if self._closings <= 0:
            return
        self._closings -= 1
        try:
            found = self._deck.provisioner(facts.on).get(facts.fold.cloud_id or facts.fold.intent.name)
        except InstanceNotFound:
            found = None
        if found is None or found.state is InstanceState.gone:
            self._forget(facts.vm, evidence, ended_by(self._deck, facts.fold))

    def _forget(self, vm: str, evidence: str, ended: float = 0.0) -> None:
        ledger = VmLedger(self._deck.desk, vm)
        ledger.delete(evidence, "reaper")
        ledger.gone(evidence, ended)
        self._deck.desk.store.delete(keys.vm_index(vm))
        Session.of(self._deck, vm).remove()


def _never(_: str) -> bool:
    return False


def _reason(facts: Observed) -> str:
    """Why it is kept."""
    if _silent(facts):
        return f"suspected: no sign of life for {facts.silent:.0f} s; its agent may still answer"
    if facts.unreadable:
        return "its journal cannot be read or trusted, so nothing counts but its maximum lifetime"
    if facts.elsewhere:
        return "its cloud does not have it, but its agent lives: are these credentials for the account that it is in?"
    if facts.fold is None:
        return "unknown to the store, and still young"
    if (hold := facts.fold.hold) is not None:
        return f"held for debugging for {format_duration(max(0.0, hold.until - facts.now))} more: {hold.why}"
    if facts.fold.ready is None:
        return f"{facts.fold.phase}: it is being made ready"
    return f"it works on {facts.busy}" if facts.busy else "it is kept warm"


def _silent(facts: Observed) -> bool:
    return facts.silent is not None and facts.silent >= facts.dead_after
