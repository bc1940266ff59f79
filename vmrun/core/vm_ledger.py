"""The moves in the life of a VM: each reads its journal to the end, judges by the fold, and appends or does not.

Every move says whether it holds. None rests on a lease or a clock: the journal's order decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from . import keys
from .desk import Desk
from .errors import Corrupt, StoreError
from .folds import VmFold
from .heartbeats import HeartbeatReader
from .record import Record
from .records import (
    Alive,
    Assign,
    Created,
    Delete,
    Drain,
    Entry,
    Failed,
    Gone,
    Hold,
    Intent,
    Ready,
    Relieve,
    Stay,
    Suspect,
)
from .signing import OwnCheck

#: Attempts at one move before giving up; each lost attempt means that somebody else's move succeeded.
MOVES_MAX = 1000


class VmLedger:
    """A VM's journal and what it means. Learns the VM's key from READY, for this and for other journals."""

    def __init__(self, desk: Desk, vm: str) -> None:
        self.vm = vm
        self.fold = VmFold()
        self._desk = desk
        self._keyring = desk.keyring
        self._journal = desk.journal(keys.vm_journal(vm), OwnCheck(desk.keyring, vm))
        self.heartbeats = HeartbeatReader(desk.store, vm, desk.keyring)

    @property
    def seen(self) -> int:
        """Number of entries read."""
        return self._journal.next

    def refresh(self) -> VmFold:
        """Read what is new."""
        for _ in self.read():
            pass
        self._check_intent()
        return self.fold

    def read(self) -> Iterator[Entry]:
        """What is new, entry by entry, each folded when it is given."""
        for entry in self._journal.read():
            self._take(entry)
            yield entry

    def _check_intent(self) -> None:
        if self.fold.intent is not None:
            self._desk.check_deployment(self.fold.intent.deployment, f"VM {self.vm}")

    def has(self, job: str) -> bool:
        """Whether the VM was made ready and given `job` at any time. Reads no further than it must.

        So what a VM did for a job stays readable whatever is appended to, or befalls, its journal later.
        """
        if not self._has(job):
            for entry in self._journal.read():
                self._take(entry)
                if self._has(job):
                    break
        return self._has(job)

    def _has(self, job: str) -> bool:
        self._check_intent()
        return self.fold.ready is not None and job in self.fold.jobs

    def _take(self, entry: Entry) -> None:
        self.fold.apply(entry)
        self._check_intent()
        ready = self.fold.ready
        if ready is not None and entry.body is ready:
            self._keyring.add(f"vm:{self.vm}", _public_key(self.vm, ready))

    def intend(self, body: Intent) -> bool:
        """Fix what may be created; nothing may be created before, nor when this is False."""
        for _ in range(MOVES_MAX):
            self.refresh()
            # An intent counts as the first entry only: an id that was condemned before is burnt.
            if self.seen:
                return self._journal.wrote(0) and not self.fold.ended
            if self._append(body):
                return True
        raise contended(keys.vm_journal(self.vm))

    def created(self, cloud_id: str) -> bool:
        """Note the cloud's identifier."""
        return self._move(Created(cloud_id), lambda fold: not fold.cloud_id and not fold.ended)

    def failed(self, fault: str, message: str) -> bool:
        """Note that the cloud refused for good."""
        return self._move(Failed(fault, message[:2000]), lambda fold: not fold.cloud_id and not fold.ended)

    def ready(self, body: Ready) -> bool:
        """Let the agent work. Raises Corrupt, with nothing written, for a key that is none."""
        _public_key(self.vm, body)
        return self._move(body, lambda fold: fold.ready is None and not fold.ended)

    def assign(
        self,
        job: str,
        keep_warm: float,
        max_cost: float = 0.0,
        environment: str = "",
        until: float = 0.0,
        *,
        jobs: int | None = None,
    ) -> bool:
        """Give it a further job; False if it can take none, or was given other than `jobs` jobs before.

        One that it has already is not given twice.
        """

        def free(fold: VmFold) -> bool:
            return fold.assignable and job not in fold.jobs and jobs in (None, len(fold.jobs))

        self._move(Assign(job, keep_warm, max_cost, environment, until), free)
        return job in self.fold.jobs and self.fold.drain is None and not self.fold.ended

    def stay(self, until: float) -> bool:
        """Have it wait for jobs until then, 0 for no longer than they say; False if it ends already."""
        self._move(Stay(until), lambda fold: fold.drain is None and not fold.ended and fold.stay_until != until)
        return self.fold.stay_until == until and self.fold.drain is None and not self.fold.ended

    def suspect(self, by: str) -> bool:
        """Say that it seems dead."""
        return self._move(Suspect(by), lambda fold: not fold.suspected and not fold.ended)

    def alive(self) -> bool:
        """Refute a SUSPECT."""
        return self._move(Alive(), lambda fold: fold.suspected and not fold.ended)

    def hold(self, body: Hold, *, jobs: int) -> bool:
        """Keep it for debugging after the `jobs` jobs it has been given; False if it has another one, or ends."""
        self._move(body, lambda fold: fold.unsettled and len(fold.jobs) == jobs)
        return self.fold.hold is not None and self.fold.drain is None and not self.fold.ended

    def drain(self, reason: str, *, jobs: int, stay_until: float | None = None) -> bool:
        """End after the `jobs` jobs that it has been given; False if a further one came in meanwhile, or it ended.

        With `stay_until`, also if it was told meanwhile to wait for jobs until another time than that.
        """

        def allowed(fold: VmFold) -> bool:
            same = len(fold.jobs) == jobs and stay_until in (None, fold.stay_until)
            return same and fold.drain is None and not fold.ended

        self._move(Drain(reason), allowed)
        return self.fold.drain is not None and not self.fold.ended and len(self.fold.jobs) == jobs

    def delete(self, why: str, by: str, *, seen: int | None = None, jobs: int | None = None) -> bool:
        """Condemn it; False if that is so already, if there are more entries than `seen`, or other than `jobs` jobs.

        A refused creation too: the refusal may have been wrong. Without any entry, it burns the id.
        """
        for _ in range(MOVES_MAX):
            fold = self.refresh()
            if fold.delete is not None or fold.gone is not None or seen not in (None, self.seen):
                return False
            if jobs not in (None, len(fold.jobs)):
                return False
            if self._append(Delete(why, by)):
                return True
        raise contended(keys.vm_journal(self.vm))

    def gone(self, evidence: str, until: float = 0.0) -> bool:
        """Note that it is no more, and was no more at `until`, in seconds since the epoch, if that is known."""
        return self._move(Gone(evidence, until), lambda fold: fold.gone is None)

    def relieve(self, by: str, patience: float, now: float) -> bool:
        """Take it on to replace the lost VM; False while another has, for about `patience` seconds by the clock.

        Whose clock is far ahead has no longer than that. Taken on again after that, it is for as long again.
        """
        self._move(Relieve(by), lambda fold: abs(now - fold.relieved_at) >= patience)
        return self.fold.relieved_by == by

    def _move(self, body: Record, allowed: Callable[[VmFold], bool]) -> bool:
        for _ in range(MOVES_MAX):
            fold = self.refresh()
            # The first entry is the intent's: before it, nothing but its end can be said of the VM.
            if (fold.intent is None and fold.delete is None) or not allowed(fold):
                return False
            if self._append(body):
                return True
        raise contended(keys.vm_journal(self.vm))

    def _append(self, body: Record) -> bool:
        entry = self._journal.append(body)
        if entry is not None:
            self._take(entry)
        return entry is not None


def _public_key(vm: str, ready: Ready) -> bytes:
    try:
        return bytes.fromhex(ready.agent_key)
    except ValueError as error:
        raise Corrupt(f"the key of VM {vm} is not hexadecimal") from error


def contended(prefix: str) -> StoreError:
    """What to say of a journal to which others append without end."""
    return StoreError(
        f"{MOVES_MAX} attempts to append to {prefix} were all overtaken",
        hint="another vmrun process appends to it without end; look for a runaway client",
    )
