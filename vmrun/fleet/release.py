"""Giving back VMs that stay for somebody: held for debugging, or kept warm."""

from __future__ import annotations

from dataclasses import dataclass

from vmrun.core.errors import UsageError
from vmrun.core.heartbeats import read_heartbeat
from vmrun.core.vm_ledger import VmLedger

from .deck import Deck, OnStage
from .login import Found, find
from .retire import retire


@dataclass(frozen=True, slots=True)
class Released:
    """What became of one VM."""

    vm: str
    #: Whether it was seen to be gone; else it ends, and the reaper sees to it.
    gone: bool


def release(deck: Deck, text: str, on_stage: OnStage) -> Released:
    """Give back the VM that `text` names, or that is held for the job that it names, now.

    Raises UsageError for a VM that works, and when it is given a job meanwhile.
    """
    found = find(deck, text)
    if found.fold.hold is None:
        _refuse_if_busy(deck, found)
    why = "its hold was ended" if found.fold.hold is not None else "it was released"
    gone = retire(deck, found.vm, why, on_stage, jobs=len(found.fold.jobs))
    if not gone and not VmLedger(deck.desk, found.vm).refresh().ended:
        raise UsageError(f"VM {found.vm} was given a job meanwhile", hint="`vmrun status` shows what it does")
    return Released(found.vm, gone)


def _refuse_if_busy(deck: Deck, found: Found) -> None:
    beat = read_heartbeat(deck.desk.store, found.vm, deck.desk.keyring)
    # What it said before it knew of its last job is no rest.
    if beat is not None and not beat.busy and beat.seen > found.fold.given_n:
        return
    job = found.fold.jobs[-1] if found.fold.jobs else ""
    raise UsageError(
        f"VM {found.vm} works{f' on job {job}' if job else ''}",
        hint=f"`vmrun cancel {job}` ends the job, and the VM with it; `vmrun reap --all` deletes every VM",
    )
