"""One journal, three writers, anything in any order: appended, answered, dropped, delivered late, crashed, revived."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.sim.keys import FakeSigner, fake_keyring
from tests.unit.core.world import ManualClock, ScriptedStore
from vmrun.core import keys
from vmrun.core.errors import StoreUnavailable
from vmrun.core.journal import Journal
from vmrun.core.records import Cancel

PREFIX = "jobs/x/journal/"
WRITERS = st.integers(0, 2)
FATES = st.lists(st.sampled_from(["", "", "lost", "dropped", "late"]), max_size=3)


@dataclass
class Writer:
    """One process and what its journal told it."""

    journal: Journal
    read: list[str] = field(default_factory=list)
    #: (number, what) of appends that ended in doubt, not settled yet.
    doubt: tuple[int, str] | None = None


class JournalMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.store = ScriptedStore()
        self.lives = 0
        self.counter = 0
        #: What every number holds, from when it was first seen to hold it.
        self.history: list[bytes] = []
        self.held: dict[str, int] = {}
        self.lost: set[str] = set()
        self.writers = [self.a_writer() for _ in range(3)]

    def a_writer(self) -> Writer:
        self.lives += 1
        return Writer(
            Journal(
                self.store,
                PREFIX,
                clock=ManualClock(),
                rng=random.Random(self.lives),
                verifier=fake_keyring(),
                signer=FakeSigner("client"),
                budget=0.05,
            )
        )

    @rule(who=WRITERS, blind=st.integers(0, 2))
    def catch_up(self, who: int, blind: int) -> None:
        writer = self.writers[who]
        self.store.blind = blind
        try:
            for entry in writer.journal.read():
                assert isinstance(entry.body, Cancel)
                assert entry.n == len(writer.read)
                writer.read.append(entry.body.by)
        except StoreUnavailable:
            pass
        self.store.blind = 0
        self.settle(writer)

    @rule(who=WRITERS, fates=FATES, blind=st.integers(0, 2))
    def append(self, who: int, fates: list[str], blind: int) -> None:
        writer = self.writers[who]
        self.counter += 1
        what, n = f"{self.counter}", writer.journal.next
        self.store.fates = list(fates)
        self.store.blind = blind
        try:
            entry = writer.journal.append(Cancel(what))
        except StoreUnavailable:
            # If an earlier doubt stood, that one was sent again and nothing of this one.
            if writer.doubt is None:
                writer.doubt = (n, what)
            else:
                self.lost.add(what)
        else:
            if entry is None:
                self.lost.add(what)
            else:
                assert writer.doubt is None
                assert entry.n == n
                self.held[what] = n
                writer.read.append(what)
        self.store.fates, self.store.blind = [], 0

    @rule()
    def deliver_late(self) -> None:
        self.store.deliver()

    @rule(who=WRITERS)
    def crash(self, who: int) -> None:
        self.writers[who] = self.a_writer()

    def settle(self, writer: Writer) -> None:
        """A doubt is settled by reading past it, and then told truly."""
        if writer.doubt is not None and writer.journal.next > writer.doubt[0]:
            n, what = writer.doubt
            assert writer.journal.wrote(n) == (writer.read[n] == what)
            if writer.journal.wrote(n):
                self.held[what] = n
            else:
                self.lost.add(what)
            writer.doubt = None

    def contents(self) -> list[str]:
        entries = Journal(self.store, PREFIX, clock=ManualClock(), rng=random.Random(0), verifier=fake_keyring()).read()
        return [entry.body.by for entry in entries if isinstance(entry.body, Cancel)]

    @invariant()
    def numbers_have_no_gap_and_entries_never_change(self) -> None:
        now = [self.store.objects.get(keys.entry(PREFIX, n)) for n in range(len(self.store.objects))]
        assert None not in now
        assert now[: len(self.history)] == self.history
        self.history = [body for body in now if body is not None]

    @invariant()
    def what_was_reported_is_what_is(self) -> None:
        contents = self.contents()
        assert len(contents) == len(self.history)
        assert len(set(contents)) == len(contents)
        assert all(contents[n] == what for what, n in self.held.items())
        assert not self.lost & set(contents)
        assert all(writer.read == contents[: len(writer.read)] for writer in self.writers)
        assert all(writer.journal.next == len(writer.read) for writer in self.writers)


JournalMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30)
TestJournalMachine = JournalMachine.TestCase
