"""The one primitive: a numbered, append-only sequence of objects whose entries are created, never overwritten.

Compare-and-swap is made of the weakest conditional write that every store has: whoever creates number n has
appended; everyone else reads it, folds it and decides anew. There is no lock, no leader, no clock in it.
"""

from __future__ import annotations

from collections.abc import Iterator

from . import keys
from .clock import Clock, Rng, backoff
from .errors import Corrupt, KeyExists, KeyNotFound, StoreDenied, StoreUnavailable
from .record import Record
from .records import Entry
from .sealing import authentic, seal, unseal
from .signing import Signer, Verifier
from .storage import Store

#: Seconds that one append keeps trying to learn its outcome before it gives up in doubt.
APPEND_BUDGET = 60.0


class ReadOnly:
    """The signer of those who only read."""

    name = "reader"

    def sign(self, message: bytes) -> bytes:
        raise AssertionError(f"a reader signs nothing: {message[:80]!r}")


class Journal:
    """One journal as one process sees it: what it has read, and where it would append.

    Not thread-safe. Rules that keep journals gap-free and an append's outcome certain: bytes for a number are fixed
    for as long as their outcome is unknown, number n is resolved before n + 1, and nothing is ever overwritten.
    """

    def __init__(  # noqa: PLR0913 - what time, chance, keys and patience are is the caller's
        self,
        store: Store,
        prefix: str,
        *,
        clock: Clock,
        rng: Rng,
        verifier: Verifier,
        signer: Signer | None = None,
        budget: float = APPEND_BUDGET,
    ) -> None:
        self._store = store
        self.prefix = prefix
        self._clock = clock
        self._rng = rng
        self._verifier = verifier
        self._signer: Signer = signer or ReadOnly()
        self._budget = budget
        #: Number of the next entry to read, and to append as.
        self.next = 0
        #: Bytes last sent for number `next`, until that number is read.
        self._sent: bytes | None = None
        #: Whether it is not known if they hold that number.
        self._doubtful = False
        self._own: set[int] = set()

    def read(self) -> Iterator[Entry]:
        """The entries that were not read before, each verified, up to the end of the journal.

        Lazy: an entry counts as read once it is yielded. Raises Corrupt or SchemaError at the first entry that
        cannot be trusted; it and what follows stay unread.
        """
        while True:
            try:
                data = self._store.get(keys.entry(self.prefix, self.next))
            except KeyNotFound:
                return
            entry = unseal(self.prefix, self.next, data, self._verifier)
            if data == self._sent:
                self._own.add(self.next)
            # Number `next` is taken, by what was sent or for ever instead of it: no doubt is left.
            self._sent, self._doubtful = None, False
            self.next += 1
            yield entry

    def skip_to_last(self) -> None:
        """Have the next read begin with the last entry: for a journal each of whose entries says all.

        Raises Corrupt for what is no entry, and StoreError.
        """
        for listed in self._store.list(self.prefix):
            number = listed.key[len(self.prefix) :]
            if not number.isdigit():
                raise Corrupt(f"{listed.key} is no entry of a journal")
            self.next = int(number)

    def wrote(self, n: int) -> bool:
        """Whether entry `n`, which was read or appended, is this object's, the ones that ended in doubt included."""
        return n in self._own

    def append(self, body: Record, attachment: bytes = b"") -> Entry | None:
        """Append `body` right after what was read; None if somebody else's entry took that number.

        After None the caller reads on and decides anew. Raises StoreUnavailable when the outcome could not be
        learnt within the budget: then the same bytes are sent again before anything else is appended. Raises
        StoreDenied, before anything is sent, for an entry that readers would refuse: it would end the journal.
        """
        if self._sent is not None:
            # Number `next` is taken, perhaps by what was sent: nothing may take its place here before it is read.
            if self._doubtful:
                self._send(self._sent)
            return None
        nonce = f"{self._rng.getrandbits(96):024x}"
        entry = Entry(self.next, self._signer.name, nonce, self._clock.now(), body, attachment)
        data = seal(self.prefix, entry, self._signer)
        if not authentic(data, self._signer.name, self._verifier):
            raise StoreDenied(
                f"{self._signer.name} may not write to {self.prefix}",
                hint="a VM writes to its own journal once it is ready, and to those of jobs that it was given",
            )
        self._sent, self._doubtful = data, True
        if not self._send(data):
            return None
        self._sent = None
        self._own.add(self.next)
        self.next += 1
        return entry

    def _send(self, data: bytes) -> bool:
        """Create number `next` with `data`; whether it now holds them. Clears the doubt when it is resolved.

        All bytes are compared, not the nonce alone: an entry that was damaged on its way is nobody's, and taking
        it for one's own would put what follows where no reader gets to.
        """
        key = keys.entry(self.prefix, self.next)
        deadline = self._clock.monotonic() + self._budget
        attempt = 0
        while True:
            try:
                self._store.create(key, data)
                won = True
                break
            except (KeyExists, StoreUnavailable):
                found = self._peek(key)
            if found is not None:
                won = found == data
                break
            if self._clock.monotonic() >= deadline:
                raise StoreUnavailable(
                    f"the store did not say within {self._budget:.0f} s whether {key} was written",
                    hint="check the network and the store, then run the command again",
                )
            self._clock.sleep(backoff(attempt, self._rng))
            attempt += 1
        self._doubtful = False
        return won

    def _peek(self, key: str) -> bytes | None:
        try:
            return self._store.get(key)
        except (KeyNotFound, StoreUnavailable):
            return None
