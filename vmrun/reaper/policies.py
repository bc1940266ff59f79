"""Pure judges over one fact sheet. Each says why a VM must go, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from vmrun.core.clouds import TAG_OWNER, TAG_VM, Instance, InstanceState, instance_name
from vmrun.core.folds import VmFold
from vmrun.core.ids import is_id
from vmrun.core.money import paid_until
from vmrun.core.units import format_duration
from vmrun.fleet.guards import tagged_deadline

#: Seconds after its hard deadline at which a VM is deleted by the reaper: its own timer comes first.
DEADLINE_MARGIN = 5.0
#: Seconds after the end of a hold: the agent and the timer come first.
HOLD_MARGIN = 30.0
#: Seconds that an instance without any journal may exist: its client may be between two writes.
ORPHAN_GRACE = 600.0
#: VMs that may look dead at once even if they are most of those there are.
DEAD_AT_ONCE = 3
#: Seconds that something without a machine may exist: its machine may be on its way.
LEFTOVER_AGE = 1800.0
#: Seconds for which a reaper must have seen it, where the cloud does not tell its age.
LEFTOVER_SEEN = 300.0
#: Seconds beyond the boot grace: the VM's own timer comes first.
BOOT_MARGIN = 5.0
#: Seconds after the end of its wait, or of its job's time, at which a VM is deleted: its agent is to end it before.
IDLE_MARGIN = 60.0


@dataclass(frozen=True, slots=True)
class Observed:
    """All that is known of one VM at one moment."""

    vm: str
    on: str
    #: What the cloud shows; None when it shows nothing (the listing was complete).
    instance: Instance | None
    #: What the journal says; None when there is none, or none that can be read.
    fold: VmFold | None
    #: Seconds since the epoch, on the observer's clock.
    now: float
    #: Entries of the journal that were read.
    seen: int = 0
    #: Seconds for which the heartbeat has not changed, as this observer saw it; None when it cannot tell yet.
    silent: float | None = None
    #: What its agent last said that it works on; "" for nothing.
    busy: str = ""
    #: Seconds for which it had no work, as its agent said when it knew the whole journal; None when it did not say.
    idle: float | None = None
    #: Of a VM that no cloud shows: seconds since its last sign of life, by its clock and the observer's.
    heard: float | None = None
    #: Seconds of silence after which a VM is suspected.
    dead_after: float = 120.0
    #: Whether the SUSPECT in its journal has stood long enough unanswered.
    contested: bool = False
    #: Whether there may be a journal that could not be read, or not be trusted: then nothing counts but the deadline.
    unreadable: bool = False
    #: Why it is not certain that the instance is this VM; "" when it is. A stranger is not judged.
    stranger: str = ""
    #: Whether its cloud could not be listed, so that nothing follows from its absence.
    unlisted: bool = False

    @property
    def elsewhere(self) -> bool:
        """Whether it lives though its cloud does not have it: whoever asks may ask in another account."""
        return self.heard is not None and abs(self.heard) < self.dead_after


Policy = Callable[[Observed], str | None]


def expired(facts: Observed) -> str | None:
    """Past the hard deadline, which its tag carries too: the store is not needed to know it."""
    deadline = _deadline(facts)
    if facts.instance is not None and deadline and facts.now > deadline + DEADLINE_MARGIN:
        return f"its maximum lifetime ended {format_duration(facts.now - deadline)} ago"
    return None


def condemned(facts: Observed) -> str | None:
    """Its journal says DELETE, and it is still there."""
    if facts.instance is None or facts.fold is None:
        return None
    if facts.fold.gone is not None:
        return "it appeared after it was gone"
    return f"deletion was decided: {facts.fold.delete.why}" if facts.fold.delete is not None else None


def drained(facts: Observed) -> str | None:
    """It took its leave, or was powered off, and is still there."""
    if facts.instance is None or facts.fold is None:
        return None
    if facts.fold.drain is not None:
        return f"it has drained: {facts.fold.drain.reason}"
    if facts.fold.failed is not None:
        return f"its creation failed: {facts.fold.failed.message}"
    return "it is powered off" if facts.instance.state is InstanceState.stopped else None


def over_budget(facts: Observed) -> str | None:
    """Its last job has cost what it may: the agent should have ended job and VM before."""
    if facts.instance is None or facts.fold is None:
        return None
    until = paid_until(facts.fold)
    if until is None or facts.now <= until + DEADLINE_MARGIN:
        return None
    return f"what its job may cost, ${facts.fold.max_cost:.2f}, was spent {format_duration(facts.now - until)} ago"


def overstayed(facts: Observed) -> str | None:
    """At work for a job that may have it no longer, though it may live on: its agent should have ended it before."""
    fold = facts.fold
    if facts.instance is None or fold is None or not fold.job_until or fold.hold is not None or not facts.busy:
        return None
    since = facts.now - fold.job_until
    return f"its job might have it until {format_duration(since)} ago" if since > IDLE_MARGIN else None


def hold_over(facts: Observed) -> str | None:
    """Held for debugging, and longer than was asked for: the agent, or the timer, should have ended it before."""
    if facts.instance is None or facts.fold is None or facts.fold.hold is None:
        return None
    since = facts.now - facts.fold.hold.until
    return f"the hold after its failure ended {format_duration(since)} ago" if since > HOLD_MARGIN else None


def never_ready(facts: Observed) -> str | None:
    """Its client did not get it ready within the boot grace."""
    fold = facts.fold
    if facts.instance is None or fold is None or fold.intent is None or fold.ready is not None:
        return None
    if fold.hold is not None:
        return None  # somebody is to find out why; the hold has an end of its own
    age = facts.now - fold.intended_at
    bound = fold.intent.boot_grace + BOOT_MARGIN
    return f"it was not ready within {format_duration(fold.intent.boot_grace)}" if age > bound else None


def idle(facts: Observed) -> str | None:
    """Without work for longer than it was to wait for any: its agent should have ended it."""
    fold = facts.fold
    if facts.instance is None or fold is None or fold.ready is None or facts.idle is None or facts.busy:
        return None
    over = min(facts.idle - fold.keep_warm, facts.now - fold.stay_until)
    return f"it has had no work for {format_duration(facts.idle)}" if over > IDLE_MARGIN else None


def dead(facts: Observed) -> str | None:
    """No sign of life, and nobody refuted the suspicion."""
    if facts.instance is None or facts.fold is None or facts.fold.ready is None or not facts.contested:
        return None
    if facts.silent is None or facts.silent < facts.dead_after:
        return None
    return f"no sign of life for {format_duration(facts.silent)}"


def orphan(facts: Observed) -> str | None:
    """In the cloud under this deployment's name, and unknown to the store."""
    if facts.instance is None or facts.fold is not None or facts.unreadable or not facts.instance.created_at:
        return None
    age = facts.now - facts.instance.created_at
    return f"nothing in the store knows it after {format_duration(age)}" if age > ORPHAN_GRACE else None


def abandoned(age: float | None, seen: float, *, ended: bool) -> str | None:
    """Why what has no machine must go: a disk, an address. None while it may still be wanted.

    `age` in seconds, None if its cloud does not tell; `seen` is for how long the observer has seen it, `ended` whether
    its VM's journal has an end.
    """
    if ended:
        return "its VM has ended"
    if age is None:
        return f"no machine has used it for {format_duration(seen)}" if seen >= LEFTOVER_SEEN else None
    return f"it is {format_duration(age)} old, and no machine uses it" if age > LEFTOVER_AGE else None


#: In the order in which they are asked; the first that answers decides.
POLICIES: tuple[Policy, ...] = (
    expired,
    condemned,
    drained,
    over_budget,
    overstayed,
    hold_over,
    never_ready,
    idle,
    dead,
    orphan,
)


def judge(facts: Observed) -> tuple[str, str] | None:
    """(policy, reason) if the VM must go. A stranger never must."""
    if facts.stranger:
        return None
    for policy in POLICIES:
        reason = policy(facts)
        if reason is not None:
            return policy.__name__, reason
    return None


def vanished(facts: Observed) -> str | None:
    """Why a VM that the cloud does not show may be called gone; None if it may still appear."""
    fold = facts.fold
    if facts.instance is not None or fold is None or fold.intent is None:
        return None
    if fold.gone is not None:
        # Whoever noted it died before it took the VM from the index.
        return "it is gone already"
    age = facts.now - fold.intended_at
    if fold.ended or fold.drain is not None:
        return "not in the cloud's listing"
    if fold.cloud_id and age > fold.intent.boot_grace:
        return "not in the cloud's listing any more" if not facts.elsewhere else None
    return "never created" if age > fold.intent.boot_grace + ORPHAN_GRACE else None


def doubtful(facts: Iterable[Observed]) -> bool:
    """Whether so many VMs look dead at once that it is rather the observer, or the store, that is not well."""
    working = [each for each in facts if each.instance is not None and each.fold is not None and each.fold.ready]
    silent = [each for each in working if each.silent is not None and each.silent >= each.dead_after]
    return len(silent) > DEAD_AT_ONCE and len(silent) > len(working) / 2


def ours(instance: Instance, deployment: str) -> str:
    """The id of the VM that the instance says it is, if it says it is this deployment's; "" otherwise.

    What does not say so is never looked at further; what does has to stand up to the guards.
    """
    vm = instance.tags.get(TAG_VM, "")
    own = bool(deployment) and instance.tags.get(TAG_OWNER) == deployment
    return vm if own and is_id(vm) and instance.name == instance_name(deployment, vm) else ""


def _deadline(facts: Observed) -> float:
    if facts.fold is not None and facts.fold.intent is not None:
        return facts.fold.intent.hard_deadline
    return tagged_deadline(facts.instance) if facts.instance is not None else 0.0
