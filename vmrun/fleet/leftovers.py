"""What a VM may leave behind beside itself: disks and addresses, known by its name."""

from __future__ import annotations

import logging

from vmrun.core.clouds import CloudError, Leftover, Provisioner, instance_name
from vmrun.core.ids import is_id

from .deck import Deck, OnStage

log = logging.getLogger(__name__)


def vm_of(leftover: Leftover, deployment: str) -> str:
    """The VM that a leftover was made with; "" if its name does not say that it is this deployment's."""
    prefix = instance_name(deployment, "")
    if not deployment or not leftover.name.startswith(prefix):
        return ""
    vm = leftover.name.removeprefix(prefix).partition("-")[0]
    return vm if is_id(vm) else ""


def discard_leftovers(deck: Deck, provisioner: Provisioner, vm: str, on_stage: OnStage) -> None:
    """Delete what the VM, which is gone, left behind. Never raises: the reaper looks again."""
    try:
        left = [each for each in provisioner.leftovers(deck.deployment) if vm_of(each, deck.deployment) == vm]
        for each in left:
            on_stage(f"giving back {each.kind} {each.id}")
            provisioner.discard(each)
    except CloudError as error:
        log.warning("event=leftovers-stay vm=%s error=%s", vm, error.message)
        on_stage(f"what {vm} left behind could not be seen to ({error.message}); `vmrun reap` will finish it")
