"""The machines that there are, for people who look: what their journals tell, and of those that leave, their clouds."""

from __future__ import annotations

import logging
from collections.abc import Callable

from vmrun.core.desk import Desk
from vmrun.core.errors import VmrunError
from vmrun.core.views import VmView
from vmrun.core.vm_ledger import VmLedger
from vmrun.watch.observe import view_vm, vm_ids

from .deck import Deck
from .retire import close_if_gone

log = logging.getLogger(__name__)

#: Clouds that are looked at without being told: those that cost no request elsewhere.
NEAR = ("local", "docker")


def present(desk: Desk, deck: Callable[[], Deck]) -> list[VmView]:
    """VMs that are not known to be gone. Of one that took its leave, its cloud is asked, where that is cheap.

    `deck` is opened only if one is asked.
    """
    views = [view_vm(desk, VmLedger(desk, vm))[0] for vm in vm_ids(desk)]
    # It may have gone since they were listed.
    return [view for view in views if view.state != "gone" and not _left(view, desk.clock.now(), deck)]


def _left(view: VmView, now: float, deck: Callable[[], Deck]) -> bool:
    """Whether a VM that drained is gone, which nobody may have seen: its client may have left before it ended."""
    over = view.state == "held" and view.ends_at <= now
    if not (over or view.state == "draining") or view.on not in NEAR:
        return False
    try:
        return close_if_gone(deck(), view.id)
    except VmrunError as error:
        log.info("event=not-looked-up vm=%s error=%s", view.id, error.message)
        return False
