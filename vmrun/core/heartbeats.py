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
    return HeartbeatReader(store, vm, verifier).read()


def read_heartbeat_entry(store: Store, vm: str, verifier: Verifier) -> Entry | None:
    """The same with the time, on the VM's clock, at which it was given."""
    return HeartbeatReader(store, vm, verifier).read_entry()


class HeartbeatReader:
    """Reads one VM's signs of life again and again; the same one is opened and its signature checked only once."""

    def __init__(self, store: Store, vm: str, verifier: Verifier) -> None:
        self._store = store
        self._vm = vm
        self._verifier = verifier
        self._last: tuple[bytes, Entry] | None = None

    def read(self) -> Heartbeat | None:
        """The last sign of life; None if there is none, or none that can be trusted."""
        entry = self.read_entry()
        return entry.body if entry is not None and isinstance(entry.body, Heartbeat) else None

    def read_entry(self) -> Entry | None:
        """The same with the time, on the VM's clock, at which it was given."""
        key = keys.heartbeat(self._vm)
        try:
            data = self._store.get(key)
            if self._last is not None and self._last[0] == data:
                return self._last[1]
            entry = unseal(key, None, data, self._verifier)
        except (KeyNotFound, Corrupt, SchemaError):
            return None
        if not isinstance(entry.body, Heartbeat) or entry.writer != f"vm:{self._vm}":
            return None
        self._last = data, entry
        return entry
