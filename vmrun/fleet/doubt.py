"""Clearing up after a create call of which nobody knows what came: its instance is looked for until it cannot come."""

from __future__ import annotations

from vmrun.core import keys
from vmrun.core.clouds import CloudError, InstanceState, Provisioner
from vmrun.core.errors import StoreError
from vmrun.core.vm_ledger import VmLedger

from .deck import Deck, OnStage
from .leftovers import discard_leftovers
from .removal import Guarded, find_case, remove

#: Seconds beyond the cloud's own time to settle, for a cloud that does not answer.
PATIENCE = 120.0
#: Seconds between looks.
PAUSE = 2.0


def clear_up(deck: Deck, provisioner: Provisioner, ledger: VmLedger, sent: float, on_stage: OnStage) -> bool:
    """Condemn the VM and delete what appears of it; whether it is certain that nothing of it exists.

    `sent` is when the last create call ended, on the monotonic clock. Until the cloud has settled an empty listing
    proves nothing. When False the journal says DELETE, and the reaper goes on from there.
    """
    clock, intent = deck.desk.clock, ledger.fold.intent
    assert intent is not None, "nothing is created without an intent"
    ledger.delete("its creation got no clear answer", "client")
    on_stage(f"looking whether {intent.name} was created after all")
    settled = sent + provisioner.capabilities.settle
    while True:
        looked = clock.monotonic()
        absent = _absent(deck, provisioner, ledger)
        if absent and looked >= settled:
            break
        if clock.monotonic() >= settled + PATIENCE:
            on_stage(f"it is not certain that {intent.name} does not exist; `vmrun reap` will finish it")
            return False
        clock.sleep(PAUSE)
    ledger.gone("not in the listing when its cloud had settled")
    deck.desk.store.delete(keys.vm_index(ledger.vm))
    discard_leftovers(deck, provisioner, ledger.vm, on_stage)
    return True


def _absent(deck: Deck, provisioner: Provisioner, ledger: VmLedger) -> bool:
    """Whether the listing, which was complete, shows no such instance; one that it shows is deleted."""
    intent = ledger.fold.intent
    assert intent is not None
    try:
        found = [each for each in provisioner.instances(deck.deployment) if each.name == intent.name]
        alive = [each for each in found if each.state is not InstanceState.gone]
        if any(each.state is not InstanceState.stopping for each in alive):
            remove(deck, find_case(deck, ledger.vm, intent.on, ledger.fold, alive), "its creation got no clear answer")
    except (CloudError, StoreError, Guarded):
        return False
    return not alive
