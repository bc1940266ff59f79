"""A host's lease: one has it, whoever is refused learns who, and it comes free by being given back or taken."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest

from tests.sim.keys import FakeSigner, fake_key, fake_keyring
from tests.unit.core.world import DEPLOYMENT, ManualClock
from vmrun.core import keys
from vmrun.core.desk import Desk
from vmrun.core.errors import Corrupt, StoreUnavailable
from vmrun.core.host_records import Borrow
from vmrun.core.leases import HostFold, HostLedger, leased_hosts
from vmrun.core.records import Entry
from vmrun.core.sealing import seal
from vmrun.core.storage import Store
from vmrun.store.memory import MemoryStore

HOST = keys.host_id("gpu1", 22)
VMS = [f"{number:026d}" for number in range(40)]


def desk(store: Store, writer: str = "client", seed: int = 1) -> Desk:
    return Desk(store, ManualClock(), random.Random(seed), fake_keyring(), FakeSigner(writer), DEPLOYMENT)


def lease(vm: str) -> Borrow:
    return Borrow(vm, DEPLOYMENT, "me@gpu1", f"vmrun-{DEPLOYMENT}-{vm}", 2e9, 900.0)


def never(_: HostFold) -> bool:
    return False


def always(_: HostFold) -> bool:
    return True


class Meddling(MemoryStore):
    """Runs something right before one create call of a host's journal, which so comes too late."""

    def __init__(self) -> None:
        super().__init__()
        self.meddle: Callable[[], object] | None = None
        #: Whether the reply of the next create call is lost.
        self.lose = False

    def create(self, key: str, body: bytes) -> None:
        meddle = self.meddle
        if meddle is not None and key.startswith("hosts/"):
            self.meddle = None
            meddle()
        super().create(key, body)
        if self.lose and key.startswith("hosts/"):
            self.lose = False
            raise StoreUnavailable("no reply")


def test_one_has_it_until_it_is_given_back() -> None:
    store = MemoryStore()
    one, two = HostLedger(desk(store), HOST), HostLedger(desk(store), HOST)
    assert one.borrow(lease(VMS[1]), never)
    assert one.borrow(lease(VMS[1]), never)  # the same wish again changes nothing
    assert not two.borrow(lease(VMS[2]), never)
    assert two.fold.holder == lease(VMS[1])
    two.give_back(VMS[2], "it is not this one's to give back")
    assert [ledger.fold.holder for ledger in leased_hosts(desk(store))] == [lease(VMS[1])]
    one.give_back(VMS[1], "cleaned")
    one.give_back(VMS[1], "cleaned")
    assert list(leased_hosts(desk(store))) == []
    assert two.borrow(lease(VMS[2]), never)


def test_of_two_that_want_it_at_the_same_moment_one_has_it() -> None:
    store = Meddling()
    slow, quick = HostLedger(desk(store), HOST), HostLedger(desk(store, seed=2), HOST)
    store.meddle = lambda: quick.borrow(lease(VMS[1]), never)
    assert not slow.borrow(lease(VMS[2]), never)
    assert slow.fold.holder == lease(VMS[1])


def test_one_that_no_longer_counts_is_taken_by_one_and_the_other_asks_again() -> None:
    store = Meddling()
    HostLedger(desk(store), HOST).borrow(lease(VMS[0]), never)
    slow, quick = HostLedger(desk(store), HOST), HostLedger(desk(store, seed=2), HOST)
    store.meddle = lambda: quick.borrow(lease(VMS[1]), always)
    asked: list[str] = []

    def only_the_first(fold: HostFold) -> bool:
        assert fold.holder is not None
        asked.append(fold.holder.vm)
        return fold.holder.vm == VMS[0]

    assert not slow.borrow(lease(VMS[2]), only_the_first)
    assert asked == [VMS[0], VMS[1]]
    # What the old holder says later does not free it.
    HostLedger(desk(store), HOST).give_back(VMS[0], "cleaned")
    assert HostLedger(desk(store), HOST).refresh().holder == lease(VMS[1])


def test_a_lost_reply_is_found_to_be_ones_own() -> None:
    store = Meddling()
    store.lose = True
    assert HostLedger(desk(store), HOST).borrow(lease(VMS[1]), never)
    assert len(list(store.list(keys.host_journal(HOST)))) == 1


def test_of_many_threads_exactly_one_has_it() -> None:
    store = MemoryStore()
    start = threading.Barrier(len(VMS))
    won: list[str] = []

    def want(vm: str, seed: int) -> None:
        ledger = HostLedger(desk(store, seed=seed), HOST)
        start.wait(120)
        if ledger.borrow(lease(vm), never):
            won.append(vm)

    threads = [threading.Thread(target=want, args=(vm, seed)) for seed, vm in enumerate(VMS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    (winner,) = won
    assert HostLedger(desk(store), HOST).refresh().holder == lease(winner)


def test_a_long_journal_is_read_from_its_end() -> None:
    store = MemoryStore()
    ledger = HostLedger(desk(store), HOST)
    for vm in VMS:
        ledger.borrow(lease(vm), never)
        ledger.give_back(vm, "cleaned")
    ledger.borrow(lease(VMS[0]), never)
    read: list[str] = []
    get = store.get
    store.get = lambda key, start=0, end=None: read.append(key) or get(key, start, end)  # type: ignore[method-assign,func-returns-value]
    assert HostLedger(desk(store), HOST).refresh().holder == lease(VMS[0])
    last = 2 * len(VMS)
    assert read == [keys.entry(keys.host_journal(HOST), n) for n in (last, last + 1)]


def test_a_vm_cannot_lend_itself_a_host() -> None:
    store = MemoryStore()
    vm = desk(store, f"vm:{VMS[1]}")
    vm.keyring.add(f"vm:{VMS[1]}", fake_key(f"vm:{VMS[1]}"))
    journal = keys.host_journal(HOST)
    forged = seal(journal, Entry(0, "", "nonce", 0.0, lease(VMS[1])), FakeSigner(f"vm:{VMS[1]}"))
    store.create(keys.entry(journal, 0), forged)
    reader = desk(store)
    reader.keyring.add(f"vm:{VMS[1]}", fake_key(f"vm:{VMS[1]}"))
    with pytest.raises(Corrupt):
        HostLedger(reader, HOST).refresh()


def test_the_lease_of_another_deployment_is_refused() -> None:
    store = MemoryStore()
    strange = Borrow(VMS[1], "another", "me@gpu1", "vmrun-another", 2e9, 900.0)
    HostLedger(Desk(store, ManualClock(), random.Random(1), fake_keyring(), FakeSigner("client")), HOST).borrow(
        strange, never
    )
    with pytest.raises(Corrupt, match="another deployment"):
        HostLedger(desk(store), HOST).refresh()


def test_ids_of_hosts_are_legible_and_differ() -> None:
    names = [("gpu1", 22), ("gpu1", 2222), ("gpu-1", 22), ("gpu_1", 22), ("fd00::1", 22), ("10.0.0.1", 22), ("..", 22)]
    ids = [keys.host_id(*name) for name in names]
    assert len(set(ids)) == len(ids)
    assert ids[0].startswith("gpu1-")
    assert all(set(found) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-") for found in ids)
    assert keys.host_id("GPU1", 22) == ids[0]
