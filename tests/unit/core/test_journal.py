from __future__ import annotations

import random

import pytest

from tests.sim.keys import FakeSigner, fake_keyring
from tests.unit.core.world import OTHER_VM, VM, Bench, ManualClock, ScriptedStore
from vmrun.core.errors import Corrupt, StoreDenied, StoreUnavailable
from vmrun.core.journal import Journal
from vmrun.core.records import Alive, Cancel, Claim, Close, Entry

PREFIX = "jobs/x/journal/"


def a_journal(
    store: ScriptedStore, writer: str = "client", *, seed: int = 0, budget: float = 5.0, trusts: str = ""
) -> Journal:
    return Journal(
        store,
        PREFIX,
        clock=ManualClock(),
        rng=random.Random(seed),
        verifier=fake_keyring(*filter(None, [trusts])),
        signer=FakeSigner(writer),
        budget=budget,
    )


def bodies(store: ScriptedStore) -> list[object]:
    return [entry.body for entry in a_journal(store).read()]


@pytest.fixture
def store() -> ScriptedStore:
    return ScriptedStore()


def test_entries_are_numbered_from_zero_without_gaps(store: ScriptedStore) -> None:
    one = a_journal(store)
    for who in "abc":
        assert one.append(Cancel(who)) is not None

    assert sorted(store.objects) == [f"{PREFIX}{n:06d}" for n in range(3)]
    assert bodies(store) == [Cancel("a"), Cancel("b"), Cancel("c")]
    assert one.next == 3
    assert list(one.read()) == []


def test_of_two_writers_one_wins_and_the_other_knows(store: ScriptedStore) -> None:
    one, two = a_journal(store, seed=1), a_journal(store, seed=2)

    first, second = one.append(Cancel("one")), two.append(Cancel("two"))

    assert first is not None
    assert second is None
    assert [entry.body for entry in two.read()] == [Cancel("one")]
    assert two.append(Cancel("two")) is not None
    assert bodies(store) == [Cancel("one"), Cancel("two")]
    assert (one.wrote(0), two.wrote(0), two.wrote(1)) == (True, False, True)


@pytest.mark.parametrize("fate", ["lost", "dropped"])
def test_a_lost_reply_is_not_a_lost_race(store: ScriptedStore, fate: str) -> None:
    one = a_journal(store)
    store.fates = [fate]

    entry = one.append(Cancel("one"))

    assert entry is not None
    assert bodies(store) == [Cancel("one")]
    assert one.next == 1


def test_another_entry_behind_a_lost_reply_is_a_lost_race(store: ScriptedStore) -> None:
    one, two = a_journal(store, seed=1), a_journal(store, seed=2)
    store.before_create = [lambda: two.append(Cancel("two"))]
    store.fates = ["", "lost"]

    assert one.append(Cancel("one")) is None
    assert bodies(store) == [Cancel("two")]


def test_the_same_words_of_another_are_not_ones_own(store: ScriptedStore) -> None:
    one, two = a_journal(store, seed=1), a_journal(store, seed=2)

    assert one.append(Close()) is not None
    assert two.append(Close()) is None


def in_doubt(store: ScriptedStore, journal: Journal, body: Cancel, fate: str) -> None:
    """Append so that the outcome stays open."""
    store.doubt(fate, lambda: journal.append(body))


@pytest.mark.parametrize("fate", ["lost", "dropped", "late"])
def test_doubtful_bytes_are_sent_again_before_anything_else(store: ScriptedStore, fate: str) -> None:
    one = a_journal(store)
    in_doubt(store, one, Cancel("first"), fate)

    # The first call settles the old entry and says that the new one was not appended.
    assert one.append(Cancel("second")) is None
    assert [entry.body for entry in one.read()] == [Cancel("first")]
    assert one.wrote(0)
    assert one.append(Cancel("second")) is not None
    store.deliver()
    assert bodies(store) == [Cancel("first"), Cancel("second")]


def test_reading_settles_a_doubt(store: ScriptedStore) -> None:
    one, two = a_journal(store, seed=1), a_journal(store, seed=2)
    in_doubt(store, one, Cancel("one"), "late")
    assert two.append(Cancel("two")) is not None

    assert [entry.body for entry in one.read()] == [Cancel("two")]

    # Number 0 is taken for ever, so the late bytes can never land, and are not sent again.
    assert not one.wrote(0)
    assert one.append(Cancel("next")) is not None
    assert store.deliver() == 0
    assert bodies(store) == [Cancel("two"), Cancel("next")]


def test_a_doubt_that_came_true_late_is_ones_own(store: ScriptedStore) -> None:
    one, two = a_journal(store, seed=1), a_journal(store, seed=2)
    in_doubt(store, one, Cancel("one"), "late")
    assert store.deliver() == 1
    assert list(two.read())
    assert two.append(Cancel("two")) is not None

    assert [entry.body for entry in one.read()] == [Cancel("one"), Cancel("two")]
    assert (one.wrote(0), one.wrote(1)) == (True, False)


def test_a_doubt_that_came_true_is_ones_own_however_often_one_appends_before_one_reads(store: ScriptedStore) -> None:
    one = a_journal(store, budget=0.05)
    store.fates = ["lost"] * 10
    with pytest.raises(StoreUnavailable):
        one.append(Cancel("first"))
    store.fates = []
    assert one.append(Cancel("second")) is None, "the first was sent again, and nothing of this one"
    sent = len(store.creates)
    assert one.append(Cancel("third")) is None
    assert len(store.creates) == sent, "the number is taken, which is known without asking"

    assert [entry.body for entry in one.read()] == [Cancel("first")]
    assert one.wrote(0)
    assert one.append(Cancel("third")) is not None
    assert bodies(store) == [Cancel("first"), Cancel("third")]


def test_an_interrupted_append_stays_in_doubt(store: ScriptedStore) -> None:
    one = a_journal(store)

    def interrupt() -> None:
        raise KeyboardInterrupt

    store.before_create = [interrupt]
    with pytest.raises(KeyboardInterrupt):
        one.append(Cancel("first"))

    assert one.append(Cancel("second")) is None
    assert bodies(store) == [Cancel("first")]


def test_a_denied_append_stays_in_doubt_and_is_not_a_lost_race(store: ScriptedStore) -> None:
    one = a_journal(store)

    def deny() -> None:
        raise StoreDenied("no permission")

    store.before_create = [deny]
    with pytest.raises(StoreDenied):
        one.append(Cancel("first"))
    assert one.append(Cancel("second")) is None
    assert bodies(store) == [Cancel("first")]


def test_an_append_gives_up_within_its_budget(store: ScriptedStore) -> None:
    one = a_journal(store, budget=5.0)
    clock = one._clock
    before = clock.monotonic()
    store.fates = ["lost"] * 10_000
    with pytest.raises(StoreUnavailable) as caught:
        one.append(Cancel("one"))

    assert 5.0 <= clock.monotonic() - before < 20.0
    assert caught.value.hint
    assert len(store.creates) < 1000


def test_damage_to_ones_own_entry_is_not_taken_for_success(store: ScriptedStore) -> None:
    one = a_journal(store)
    key = f"{PREFIX}000000"

    def damaged_on_its_way() -> None:
        entry = Entry(0, "client", f"{random.Random(0).getrandbits(96):024x}", ManualClock().now(), Cancel("one"))
        from vmrun.core.sealing import seal

        good = seal(PREFIX, entry, FakeSigner("client"))
        store.objects[key] = good.replace(b'"one"', b'"eno"')

    store.before_create = [damaged_on_its_way]

    assert one.append(Cancel("one")) is None
    with pytest.raises(Corrupt):
        list(one.read())


def test_reading_stops_where_trust_ends_and_stays_there(store: ScriptedStore) -> None:
    one = a_journal(store)
    for who in "abc":
        one.append(Cancel(who))
    good = store.objects[f"{PREFIX}000001"]
    store.objects[f"{PREFIX}000001"] = good.replace(b'"b"', b'"B"')
    reader = a_journal(store)

    seen = []
    for _ in range(2):
        with pytest.raises(Corrupt):
            for entry in reader.read():
                seen.append(entry.body)
        assert reader.append(Cancel("x")) is None
    assert seen == [Cancel("a")]

    store.objects[f"{PREFIX}000001"] = good
    assert [entry.body for entry in reader.read()] == [Cancel("b"), Cancel("c")]


def test_an_outage_is_not_the_end_of_the_journal(store: ScriptedStore) -> None:
    one = a_journal(store)
    one.append(Cancel("a"))
    reader = a_journal(store)
    store.blind = 1

    with pytest.raises(StoreUnavailable):
        list(reader.read())
    assert [entry.body for entry in reader.read()] == [Cancel("a")]


@pytest.mark.parametrize("writer", [f"vm:{VM}", f"vm:{OTHER_VM}", "client2", ""])
def test_what_readers_would_refuse_is_never_sent(store: ScriptedStore, writer: str) -> None:
    one = a_journal(store, writer, trusts=f"vm:{OTHER_VM}" if writer == f"vm:{VM}" else "")

    with pytest.raises(StoreDenied):
        one.append(Claim(VM))
    assert store.objects == {}
    assert store.creates == []


def test_an_agent_with_a_key_that_ready_does_not_name_writes_nothing() -> None:
    bench = Bench()
    bench.ready_vm()
    impostor = bench.vm(writer=f"vm:{VM}")
    impostor._journal._signer = FakeSigner(f"vm:{VM}", b"made after a reinstallation")
    bench.vm().suspect("somebody")
    before = dict(bench.store.objects)

    with pytest.raises(StoreDenied):
        impostor.alive()
    assert bench.store.objects == before


def test_a_reader_cannot_append(store: ScriptedStore) -> None:
    reader = Journal(store, PREFIX, clock=ManualClock(), rng=random.Random(0), verifier=fake_keyring())
    with pytest.raises(AssertionError):
        reader.append(Alive())
    assert store.objects == {}
