"""Signs of life: the only objects that are overwritten, each by one writer."""

from __future__ import annotations

from . import keys
from .errors import Corrupt, KeyNotFound, SchemaError
from .records import Entry, Heartbeat
from .sealing import seal, unseal
from .signing import Signer, Verifier
from .storage import Store


def write_heartbeat(store: Store, vm: str, entry: Entry, signer: Signer) -> None:
    """Replace the VM's sign of life; `entry.n` is its counter."""
    key = keys.heartbeat(vm)
    store.replace(key, seal(key, entry, signer))


def read_heartbeat(store: Store, vm: str, verifier: Verifier) -> Heartbeat | None:
    """The VM's last sign of life; None if there is none, or none that can be trusted."""
    entry = read_heartbeat_entry(store, vm, verifier)
    return entry.body if entry is not None and isinstance(entry.body, Heartbeat) else None


def read_heartbeat_entry(store: Store, vm: str, verifier: Verifier) -> Entry | None:
    """The same with the time, on the VM's clock, at which it was given."""
    key = keys.heartbeat(vm)
    try:
        entry = unseal(key, None, store.get(key), verifier)
    except (KeyNotFound, Corrupt, SchemaError):
        return None
    return entry if isinstance(entry.body, Heartbeat) and entry.writer == f"vm:{vm}" else None
