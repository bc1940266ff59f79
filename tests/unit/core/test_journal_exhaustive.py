"""Every interleaving of two writers on one journal, with up to two faults at any request: small, and complete.

The real `Journal` runs in greenlets that stop at each request. A writer does the same whenever it got the same
answers, so a state is the store, what is under way, and the answers so far; each state is visited once.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

import pytest
from greenlet import GreenletExit, getcurrent, greenlet

from tests.sim.keys import FakeSigner, fake_keyring
from tests.unit.core.world import ManualClock
from vmrun.core import keys
from vmrun.core.errors import KeyExists, KeyNotFound, StoreUnavailable
from vmrun.core.journal import Journal
from vmrun.core.records import Cancel
from vmrun.core.sealing import unseal
from vmrun.core.storage import Listed

PREFIX = "jobs/x/journal/"
#: Times that a writer tries to append one thing before it gives up; bounds the walk.
TRIES = 2


class SteppedStore:
    """Hands each request to the explorer and waits for its answer."""

    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        return answer(getcurrent().parent.switch(("get", key, b"")))

    def create(self, key: str, body: bytes) -> None:
        answer(getcurrent().parent.switch(("create", key, body)))

    def replace(self, key: str, body: bytes) -> None:
        raise AssertionError("entries are never overwritten")

    def delete(self, key: str) -> None:
        raise AssertionError("entries are never deleted")

    def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
        raise AssertionError("not used")


def answer(reply: bytes | str) -> bytes:
    if isinstance(reply, bytes):
        return reply
    if reply == "exists":
        raise KeyExists("exists")
    if reply == "missing":
        raise KeyNotFound("missing")
    if reply == "unavailable":
        raise StoreUnavailable("no answer")
    return b""


@dataclass
class Writer:
    """One process that appends `appends` things, each until it holds or too often."""

    name: int
    appends: int
    held: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    #: (number, what) of the append that ended in doubt, until the number was read.
    doubt: tuple[int, str] | None = None

    def run(self) -> None:
        journal = Journal(
            SteppedStore(),
            PREFIX,
            clock=ManualClock(),
            rng=random.Random(self.name),
            verifier=fake_keyring(),
            signer=FakeSigner("client"),
            # Doubt is reported at once: then all that follows a doubt is walked too.
            budget=-1.0,
        )
        for thing in range(self.appends):
            for attempt in range(TRIES):
                if self.append(journal, f"{self.name}.{thing}.{attempt}"):
                    break

    def append(self, journal: Journal, what: str) -> bool:
        """Try once; whether this thing now holds, by this attempt or by an earlier one in doubt."""
        try:
            for _ in journal.read():
                pass
            if self.settled(journal, what):
                return True
            entry = journal.append(Cancel(what))
        except StoreUnavailable:
            if self.doubt is None and journal._doubtful:
                self.doubt = (journal.next, what)
            return False
        if entry is None:
            self.lost.append(what)
            return False
        self.held[what] = entry.n
        return True

    def settled(self, journal: Journal, what: str) -> bool:
        if self.doubt is None or journal.next <= self.doubt[0]:
            return False
        (n, doubted), self.doubt = self.doubt, None
        if not journal.wrote(n):
            self.lost.append(doubted)
            return False
        self.held[doubted] = n
        return doubted.rpartition(".")[0] == what.rpartition(".")[0]


class Run:
    """One way through, replayed from the choices that lead there."""

    def __init__(self, appends: tuple[int, ...], faults: int) -> None:
        self.objects: dict[str, bytes] = {}
        self.late: list[tuple[str, bytes]] = []
        self.faults = faults
        self.writers = [Writer(name, count) for name, count in enumerate(appends)]
        self.threads = [greenlet(writer.run) for writer in self.writers]
        self.requests = [thread.switch() for thread in self.threads]
        self.answers: list[tuple[object, ...]] = [() for _ in self.threads]

    def choices(self) -> Iterator[tuple[str, int]]:
        for at, request in enumerate(self.requests):
            if request is not None:
                yield "ok", at
                if self.faults:
                    yield "unavailable", at
                    if request[0] == "create":
                        yield "dropped", at
                        yield "late", at
        for at in range(len(self.late)):
            yield "deliver", at

    def step(self, choice: tuple[str, int]) -> None:
        what, at = choice
        if what == "deliver":
            key, body = self.late.pop(at)
            self.objects.setdefault(key, body)
            return
        verb, key, body = self.requests[at]
        reply: bytes | str = "unavailable"
        if what != "ok":
            self.faults -= 1
        if what == "late":
            self.late.append((key, body))
        elif what in ("ok", "dropped"):
            reply = self.serve(verb, key, body)
            if what == "dropped":
                reply = "unavailable"
        self.answers[at] += (reply,)
        self.requests[at] = self.threads[at].switch(reply) if not self.threads[at].dead else None

    def serve(self, verb: str, key: str, body: bytes) -> bytes | str:
        if verb == "get":
            return self.objects.get(key, "missing")
        if key in self.objects:
            return "exists"
        number = int(key[len(PREFIX) :])
        assert number == 0 or keys.entry(PREFIX, number - 1) in self.objects, "a gap"
        self.objects[key] = body
        return "created"

    def state(self) -> object:
        return frozenset(self.objects.items()), tuple(self.late), self.faults, tuple(self.answers)

    def check(self) -> None:
        """What the writers were told is what the store holds."""
        contents = {int(key[len(PREFIX) :]): words(key, body) for key, body in self.objects.items()}
        assert sorted(contents) == list(range(len(self.objects)))
        for writer in self.writers:
            assert all(contents.get(n) == what for what, n in writer.held.items())
            assert not set(writer.lost) & set(contents.values())
            # Nothing that was asked for once is there twice.
            things = [what.rsplit(".", 1)[0] for what in contents.values() if what.startswith(f"{writer.name}.")]
            assert len(things) == len(set(things))

    def close(self) -> None:
        for thread in self.threads:
            if not thread.dead:
                thread.throw(GreenletExit)


@cache
def words(key: str, body: bytes) -> str:
    """What the entry says, if it can be trusted."""
    entry = unseal(PREFIX, int(key[len(PREFIX) :]), body, fake_keyring())
    assert isinstance(entry.body, Cancel)
    return entry.body.by


def explore(appends: tuple[int, ...], faults: int) -> tuple[int, int, int]:
    """Visit every state; how many there are, how many of them end, and how many ends hold a lost append."""
    seen: set[object] = set()
    ends = losses = 0
    todo: list[tuple[tuple[str, int], ...]] = [()]
    while todo:
        path = todo.pop()
        run = Run(appends, faults)
        for choice in path:
            run.step(choice)
        # Go on along one way for as long as it is new; leave the other ways for later.
        while True:
            state = run.state()
            if state in seen:
                break
            seen.add(state)
            run.check()
            first, *others = list(run.choices()) or [None]
            if first is None:
                ends += 1
                losses += any(writer.lost for writer in run.writers)
                break
            todo.extend((*path, other) for other in others)
            path = (*path, first)
            run.step(first)
        run.close()
    return len(seen), ends, losses


@pytest.mark.parametrize(("appends", "faults"), [((2, 1), 1), pytest.param((2, 1), 2, marks=pytest.mark.slow)])
def test_every_interleaving_keeps_the_journal_and_tells_the_truth(appends: tuple[int, int], faults: int) -> None:
    states, ends, losses = explore(appends, faults)

    print(f"{states} states, {ends} ends, {losses} with a lost append")
    assert states > 500
    assert losses > 10
