"""Whether a host that somebody has may be taken, and what is said of one that may not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from vmrun.core.clouds import CloudError, Fault, Scope
from vmrun.core.desk import Desk
from vmrun.core.errors import Corrupt, SchemaError
from vmrun.core.host_records import Borrow
from vmrun.core.leases import HostFold
from vmrun.core.vm_ledger import VmLedger
from vmrun.machine.borrowed import Marker

from .hosts import HostName

#: Seconds beyond a hard deadline after which nobody's clock says that it is still to come, and the host's own timer,
#: if it runs at all, has cleaned.
MARGIN = 300.0


def may_take(desk: Desk, fold: HostFold, look: Callable[[], Marker | None]) -> bool:
    """Whether the lease does not count any more. `look` says who is on the host; it raises CloudError.

    Being wrong is no danger: whoever takes the host cleans it first, and is refused by it while it is being borrowed.
    """
    holder, now = fold.holder, desk.clock.now()
    assert holder is not None, "a free host is not taken"
    if now > holder.hard_deadline + MARGIN:
        return True
    try:
        vm = VmLedger(desk, holder.vm).refresh()
    except (Corrupt, SchemaError):
        return False
    if vm.ended:
        return True
    if vm.ready is None and now < fold.since + holder.boot_grace:
        return False  # its client may be just about to borrow it
    try:
        found = look()
    except CloudError:
        return False
    return found is None or found.vm != holder.vm


def held(host: HostName, holder: Borrow) -> CloudError:
    """The error for a host that another VM has."""
    return _held(host, f"{holder.name} until {clock_time(holder.hard_deadline)} at the latest")


def held_by_others(host: HostName, marker: Marker) -> CloudError:
    """The error for a host that says itself that another VM has it."""
    return _held(host, f"{marker.name} until {clock_time(marker.hard_deadline)} at the latest, as the host itself says")


def _held(host: HostName, by: str) -> CloudError:
    message = f"{host.text} is leased to {by}"
    hint = f"{message}: wait, end that job, or name more hosts in [ssh] hosts"
    return CloudError(message, fault=Fault.stockout, scope=Scope.zone, cloud_code="leased", hint=hint)


def clock_time(seconds: float) -> str:
    """A moment for people everywhere."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
