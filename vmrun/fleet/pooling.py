"""What is to be done about a pool: which of its VMs stay, until when, which are let go, how many are missing. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vmrun.core.errors import UsageError
from vmrun.core.folds import VmFold
from vmrun.core.ids import born
from vmrun.core.pool_records import PoolSpec
from vmrun.core.schedules import parse_schedule

from .matching import suits

#: VMs of one pool at most.
SIZE_MAX = 1000
#: Seconds within which a VM that joined is intended, or never will be.
JOIN_GRACE = 120.0
#: Seconds of its life that must be left for a VM to count: another one is made ready meanwhile.
RENEW_BEFORE = 300.0
#: Seconds.
WEEK = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class Member:
    """A VM of a pool as its journal tells it; the fold is None for one that cannot be read."""

    vm: str
    fold: VmFold | None
    #: Whether it works, by its last sign of life.
    busy: bool = False


@dataclass(frozen=True, slots=True)
class Steps:
    """What is to be done."""

    #: Seconds since the epoch until which the pool is up; 0: it is not.
    until: float = 0.0
    #: VMs to make.
    missing: int = 0
    #: VMs that are to wait until then, and do not yet.
    prolong: tuple[str, ...] = ()
    #: VMs that are to wait for no further job, and do so still.
    release: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Changes:
    """What somebody asks of a pool; None for what is to stay as it is."""

    on: str | None = None
    #: Fields of its `Need`.
    need: Mapping[str, Any] = field(default_factory=dict)
    size: int | None = None
    #: Seconds from now on.
    lasting: float | None = None
    schedule: str | None = None
    max_lifetime: float | None = None


def changed(spec: PoolSpec, changes: Changes, now: float) -> PoolSpec:
    """What is wanted from here on. Raises UsageError for a pool that would have no end, or has had it."""
    said = {
        name: value
        for name in ("on", "size", "schedule", "max_lifetime")
        if (value := getattr(changes, name)) is not None
    }
    if changes.lasting is not None:
        said["until"] = float(round(now + changes.lasting))
    found = replace(spec, need=replace(spec.need, **changes.need), **said)
    if found.until and found.until <= now:
        raise UsageError("the time of this pool is over", hint="say for how long from now on: --for 8h")
    if not found.until and not found.schedule:
        raise UsageError(
            "a pool costs money until somebody takes it down", hint="say for how long: --for 8h, or --schedule"
        )
    return found


def up_until(wanted: PoolSpec | None, now: float) -> float:
    """When, in seconds since the epoch, the pool is to be up no longer; 0 if it is not to be up at `now`."""
    if wanted is None or (wanted.until and now >= wanted.until):
        return 0.0
    if not wanted.schedule:
        return wanted.until
    span = parse_schedule(wanted.schedule).current(now)
    if span is None:
        return 0.0
    return min(span[1], wanted.until) if wanted.until else span[1]


def up_from(wanted: PoolSpec | None, now: float) -> float:
    """When, in seconds since the epoch, the pool is to be up again; 0 if it is up, or never will be."""
    if wanted is None or not wanted.schedule or up_until(wanted, now):
        return 0.0
    begin = parse_schedule(wanted.schedule).following(now)
    return begin if not wanted.until or begin < wanted.until else 0.0


def up_for(wanted: PoolSpec, now: float) -> tuple[float, str]:
    """Seconds of the time from `now` on in which the pool is to be up, and what time that is: a week, or to its end."""
    week = now + WEEK
    ends = bool(wanted.until) and (not wanted.schedule or wanted.until <= week)
    end, seconds, at = wanted.until if ends else week, 0.0, now
    while at < end:
        until = up_until(wanted, at)
        seconds += min(until, end) - at if until else 0.0
        at = until or up_from(wanted, at) or end
    return seconds, "until the pool ends" if ends else "a week"


def counts(member: Member, now: float) -> bool:
    """Whether the VM is there, or on its way, and has some life left."""
    fold = member.fold
    if fold is None or fold.intent is None:
        # One whose journal cannot be read counts while it is young: better one too few than ever more of them.
        return now - born(member.vm) < JOIN_GRACE
    return not fold.ended and fold.drain is None and now + RENEW_BEFORE < fold.intent.hard_deadline


def steps(wanted: PoolSpec | None, members: Iterable[Member], now: float) -> Steps:
    """What brings the pool nearer to what is wanted."""
    until = up_until(wanted, now)
    members = list(members)
    there = [member for member in members if counts(member, now)]
    kept = _kept(wanted, there) if wanted is not None and until else []
    names = {member.vm for member in kept}
    # One that is near its end is let go as well: a job that it took now would be cut short.
    folds = {member.vm: member.fold for member in members if member.fold is not None and member.fold.assignable}
    return Steps(
        until=until,
        missing=max(0, wanted.size - len(kept)) if wanted is not None and until else 0,
        prolong=tuple(vm for vm, fold in folds.items() if vm in names and fold.stay_until != until),
        release=tuple(vm for vm, fold in folds.items() if vm not in names and fold.stay_until),
    )


def _kept(wanted: PoolSpec, there: Iterable[Member]) -> list[Member]:
    """At most as many as are wanted: those that work first, then those that are ready, the oldest first."""
    fitting = [member for member in there if _wanted(wanted, member)]

    def rank(member: Member) -> tuple[bool, bool, str]:
        ready = member.fold is not None and member.fold.ready is not None
        return not member.busy, not ready, member.vm

    return sorted(fitting, key=rank)[: wanted.size]


def _wanted(wanted: PoolSpec, member: Member) -> bool:
    """Whether it is such a VM as is wanted now: it may have been made when another kind was."""
    intent = member.fold.intent if member.fold is not None else None
    return intent is None or (wanted.on in ("auto", intent.on) and suits(intent, wanted.need))
