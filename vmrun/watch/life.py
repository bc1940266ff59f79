"""The life of one VM as its journal tells it: every entry, the last heartbeat, and what will end it."""

from __future__ import annotations

from dataclasses import dataclass

from vmrun.core import keys
from vmrun.core.clouds import NAME_PREFIX
from vmrun.core.desk import Desk
from vmrun.core.errors import Corrupt, SchemaError, UsageError
from vmrun.core.ids import is_id
from vmrun.core.records import Entry, Heartbeat
from vmrun.core.views import Deadline, VmView
from vmrun.core.vm_ledger import VmLedger

from .observe import view_vm

#: Characters of an id that must be given at least.
SHORTEST = 6
#: Readings of a journal that grows meanwhile.
READ_AGAIN = 5
#: Ids that an ambiguous text is answered with.
NAMED = 5


@dataclass(frozen=True, slots=True)
class Life:
    """What there is to tell of one VM."""

    view: VmView
    entries: tuple[Entry, ...]
    #: Bounds that still apply, the earliest first; none for one that has ended.
    deadlines: tuple[Deadline, ...] = ()
    beat: Heartbeat | None = None
    #: Seconds since the epoch, on the VM's clock.
    beat_at: float = 0.0
    #: The cloud's identifier and name; "" while not known.
    cloud_id: str = ""
    name: str = ""
    #: Why what follows the last entry cannot be told; "" if nothing does.
    broken: str = ""


def find_vm(desk: Desk, text: str) -> str:
    """The id that `text` means: an id, the unique beginning of one, or an instance's name; gone ones too.

    Raises UsageError.
    """
    wanted = text.rpartition("-")[2] if text.startswith(f"{NAME_PREFIX}-") else text
    # Ids are letters and digits: anything else must not get near a key.
    found = _beginning_with(desk, wanted) if wanted.isascii() and wanted.isalnum() and len(wanted) >= SHORTEST else []
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{text[:80]!r} is the beginning of several VMs", hint=f"say which: {', '.join(found)}")
    raise UsageError(
        f"the store knows no VM {text[:80]!r}", hint="`vmrun status JOB --json` names the VMs of a job, gone ones too"
    )


def _beginning_with(desk: Desk, text: str) -> list[str]:
    """Up to NAMED ids of VMs that have a journal; each further one costs a request, however long the journals are."""
    root = keys.VMS
    found: list[str] = []
    after = ""
    while len(found) < NAMED:
        listed = next(iter(desk.store.list(f"{root}{text}", after)), None)
        if listed is None:
            break
        vm = listed.key[len(root) :].partition("/")[0]
        # A slash sorts before every digit, so that this is after all of the VM's entries.
        after = f"{root}{vm}0"
        if is_id(vm):
            found.append(vm)
    return found


def life_of(desk: Desk, vm: str) -> Life:
    """What the store has of the VM. An entry that cannot be trusted ends the story, and is said."""
    for _ in range(READ_AGAIN):
        life, whole = _read(desk, vm)
        if whole:
            break
    return life


def _read(desk: Desk, vm: str) -> tuple[Life, bool]:
    """The same, and whether all that its state goes by is among the entries: it may go on meanwhile."""
    ledger = VmLedger(desk, vm)
    entries: list[Entry] = []
    broken = ""
    try:
        entries.extend(ledger.read())
    except (Corrupt, SchemaError) as error:
        broken = error.message
    fold = ledger.fold
    beat = ledger.heartbeats.read_entry() if fold.ready is not None else None
    view, _ = view_vm(desk, ledger)
    life = Life(
        view,
        tuple(entries),
        view.deadlines,
        beat.body if beat is not None and isinstance(beat.body, Heartbeat) else None,
        beat.at if beat is not None else 0.0,
        fold.cloud_id,
        fold.intent.name if fold.intent is not None else "",
        broken,
    )
    return life, ledger.seen == len(entries)
