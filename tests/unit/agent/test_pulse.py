"""Signs of life, and how long a VM lives on without being heard or without working."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.support.disks import small_disk
from tests.unit.agent.bench import Bench, FakeEngine, Switch, files_of
from tests.unit.core.world import JOB, OTHER_JOB, VM, an_id
from vmrun.agent import daemon, pulse
from vmrun.agent.pulse import write_lease
from vmrun.agent.work import JobRun
from vmrun.core import keys
from vmrun.core.errors import StoreUnavailable
from vmrun.core.heartbeats import HeartbeatReader, read_heartbeat
from vmrun.core.money import SAVING_MAX
from vmrun.core.vm_ledger import VmLedger

#: Seconds that one thread waits for another at most.
PATIENCE = 90.0


def lease(folder: Path) -> int:
    return int((folder / "lease").read_text())


def test_the_lease_goes_with_the_work_and_with_being_heard(bench: Bench, switch: Switch) -> None:
    bench.vm()
    shop = bench.shop(lease=1800.0)
    shop.pulse._once()
    first = lease(bench.folder)
    assert first == int(bench.clock.now()) + 1800
    # Without a sign from the work it is not renewed
    bench.clock.sleep(pulse.STUCK_AFTER + 1)
    shop.pulse._once()
    assert lease(bench.folder) == first
    shop.pulse.sign()
    shop.pulse._once()
    second = lease(bench.folder)
    assert second > first
    # An outage does not end it at once
    switch.down = True
    bench.clock.sleep(600)
    shop.pulse.sign()
    with pytest.raises(StoreUnavailable):
        shop.pulse._once()
    third = lease(bench.folder)
    assert third > second
    # But nobody hears it for too long
    bench.clock.sleep(400)
    shop.pulse.sign()
    with pytest.raises(StoreUnavailable):
        shop.pulse._once()
    assert lease(bench.folder) == third
    switch.down = False
    shop.pulse._once()
    shop.pulse._once()
    assert lease(bench.folder) > third


def test_a_vm_that_carries_much_to_the_store_keeps_its_lease(
    bench: Bench, engine: type[FakeEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a job whose tasks all end at once, each with a file, and hours until all files are in the store
    bench.submit(8, 8)
    bench.vm()
    shop = bench.shop(lease=1800.0)
    engine.before = staticmethod(lambda made, task: [files_of(bench, task, "much")])
    write, left = bench.blobs.write, list[float]()

    def slow(key: str, chunks: Iterable[bytes]) -> None:
        write(key, chunks)
        if "files/" in key:
            bench.clock.sleep(pulse.STUCK_AFTER - 60)
            shop.pulse._once()
            left.append(lease(bench.folder) - bench.clock.now())

    monkeypatch.setattr(bench.blobs, "write", slow)
    JobRun(shop, JOB).run()
    assert len(left) == 8
    # Then the timer never came near to ending it
    assert min(left) > 1000.0
    assert bench.job().final is not None


def test_an_agent_that_starts_again_and_is_not_heard_does_not_keep_its_vm(bench: Bench, switch: Switch) -> None:
    bench.vm()
    bench.shop(lease=1800.0).pulse._once()
    before = lease(bench.folder)
    switch.down = True
    for _ in range(5):
        # Each run of the agent is a new one, that knows nothing of the one before
        bench.clock.sleep(300)
        again = bench.shop(lease=1800.0)
        again.pulse.sign()
        with pytest.raises(StoreUnavailable):
            again.pulse._once()
        assert lease(bench.folder) == before
    switch.down = False
    again.pulse._once()
    assert lease(bench.folder) == int(bench.clock.now()) + 1800


class Watched(list[Any]):
    """Another thread looks right after the list has grown."""

    def __init__(self, found: Iterable[object], look: Callable[[], object]) -> None:
        super().__init__(found)
        self._look = look

    def append(self, item: object) -> None:
        super().append(item)
        self._look()


def test_a_job_that_is_just_being_read_of_is_not_judged_by_the_time_of_the_one_before(bench: Bench) -> None:
    # Given a VM at rest, long after its last job might have had it
    bench.vm(keep_warm=86400.0)
    assert VmLedger(bench.desk(), VM).assign(OTHER_JOB, 86400.0, until=bench.clock.now() + 60)
    shop = bench.shop()
    assert shop.pulse.jobs() == [JOB, OTHER_JOB]
    shop.pulse.finished(2)
    bench.clock.sleep(3600)
    assert shop.pulse.condemned() == ""
    # When one of its threads reads of a further job, and the other asks at that moment whether it is to end
    found: list[str] = []
    fold = shop.pulse.look()
    fold.jobs = Watched(fold.jobs, lambda: found.append(shop.pulse.condemned()))
    assert VmLedger(bench.desk(), VM).assign(an_id("m"), 86400.0, until=bench.clock.now() + 3600)
    assert shop.pulse.jobs() == [JOB, OTHER_JOB, an_id("m")]
    assert (found, shop.pulse.condemned()) == ([""], "")


class Early(list[Any]):
    """Another thread looks right before the list grows."""

    def __init__(self, look: Callable[[], object]) -> None:
        super().__init__()
        self._look = look

    def append(self, item: object) -> None:
        self._look()
        super().append(item)


def test_a_first_job_whose_money_is_just_being_read_of_has_not_spent_it(bench: Bench) -> None:
    # Given a VM that was made before there was a job, and one given by a client whose clock is behind
    bench.vm(job="", usd_per_hour=1.0)
    shop = bench.shop()
    fold = shop.pulse.look()
    assert (fold.jobs, fold.given_at) == ([], [])
    assert VmLedger(bench.desk(), VM).assign(JOB, 0.0, 0.01)
    bench.clock.sleep(3600)
    found: list[str] = []
    fold.jobs = Early(lambda: found.append(shop.pulse.overspent()))
    # When one of its threads reads of it, and the other asks at that moment what it has cost
    assert shop.pulse.jobs() == [JOB]
    assert found == [""]
    assert shop.pulse.overspent().startswith("it has cost $")


class Gate:
    """A lock that tells when one thread wants it."""

    def __init__(self, inner: threading.Lock, thread: threading.Thread, wanted: threading.Event) -> None:
        self._inner, self._thread, self._wanted = inner, thread, wanted

    def __enter__(self) -> None:
        if threading.current_thread() is self._thread:
            self._wanted.set()
        self._inner.acquire()

    def __exit__(self, *_: object) -> None:
        self._inner.release()


def test_a_heartbeat_does_not_tell_of_an_entry_whose_job_was_not_noted_yet(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a VM at rest, whose work is reading of a further job at the moment at which a heartbeat is made up
    bench.vm(keep_warm=60.0)
    shop = bench.shop()
    shop.pulse.finished(1)
    inside, wanted, read = threading.Event(), threading.Event(), shop.pulse._read_journal
    fold = shop.pulse.look()

    def halfway() -> None:
        inside.set()
        assert wanted.wait(PATIENCE)

    def then_the_work_reads() -> None:
        read()
        assert VmLedger(bench.desk(), VM).assign(OTHER_JOB, 60.0)
        fold.given_at = Watched(fold.given_at, halfway)
        work.start()
        assert inside.wait(PATIENCE)
        monkeypatch.setattr(shop.pulse, "_journal_lock", Gate(lock, threading.current_thread(), wanted))

    lock, work = shop.pulse._journal_lock, threading.Thread(target=shop.pulse.jobs)
    monkeypatch.setattr(shop.pulse, "_read_journal", then_the_work_reads)
    shop.pulse._once()
    wanted.set()
    work.join(PATIENCE)
    # Then it knows of the job and is busy, or it does not know yet: nobody gives it a second one to wait behind that
    desk = bench.desk()
    VmLedger(desk, VM).has(JOB)
    beat = read_heartbeat(bench.memory, VM, desk.keyring)
    assert beat is not None
    assert beat.busy or beat.seen <= fold.given_n
    assert fold.jobs == [JOB, OTHER_JOB]


def test_a_vm_that_is_told_to_wait_while_it_takes_its_leave_waits(bench: Bench) -> None:
    bench.vm(keep_warm=60.0)
    shop, until = bench.shop(), bench.clock.now() + 7200
    shop.pulse.finished(1)
    assert len(shop.pulse.jobs()) == 1
    bench.clock.sleep(61)
    # Given somebody who wants it for a pool, when it has just found that it need not wait any longer
    drain, told = shop.pulse.drain, list[bool]()

    def drain_late(reason: str, jobs: int, stay_until: float | None = None) -> bool:
        if not told:
            told.append(VmLedger(bench.desk(), VM).stay(until))
        return drain(reason, jobs, stay_until)

    shop.pulse.drain = drain_late  # type: ignore[method-assign]
    assert not daemon._leaves(shop, 1)
    assert told == [True]
    assert VmLedger(bench.desk(), VM).refresh().drain is None
    assert not daemon._leaves(shop, 1)
    # Then it leaves when that is over
    bench.clock.sleep(7200)
    assert daemon._leaves(shop, 1)


def test_a_damaged_journal_does_not_silence_the_agent(bench: Bench) -> None:
    bench.vm()
    shop = bench.shop()
    shop.pulse._once()
    bench.memory.create(keys.entry(keys.vm_journal(VM), 3), b"rubbish")
    shop.pulse._once()
    desk = bench.desk()
    VmLedger(desk, VM).has(JOB)
    beat = read_heartbeat(bench.memory, VM, desk.keyring)
    assert beat is not None
    assert beat.counter == 2
    assert not shop.pulse.condemned()


def test_a_sign_of_life_is_checked_once_and_a_later_or_a_forged_one_anew(bench: Bench) -> None:
    bench.vm()
    shop = bench.shop()
    shop.pulse._once()
    desk, checks = bench.desk(), []
    VmLedger(desk, VM).has(JOB)

    class Counting:
        def verify(self, writer: str, message: bytes, signature: bytes) -> bool:
            checks.append(writer)
            return desk.keyring.verify(writer, message, signature)

    reader = HeartbeatReader(bench.memory, VM, Counting())
    first = [reader.read() for _ in range(3)]
    assert [beat.counter for beat in first if beat] == [1, 1, 1]
    assert len(checks) == 1
    shop.pulse._once()
    second = reader.read()
    assert second is not None
    assert second.counter == 2
    genuine = bench.memory.get(keys.heartbeat(VM))
    bench.memory.replace(keys.heartbeat(VM), genuine.replace(b'"counter":2', b'"counter":3'))
    assert [reader.read() for _ in range(2)] == [None, None]
    bench.memory.replace(keys.heartbeat(VM), genuine)
    assert reader.read() == second


def test_a_suspicion_is_refuted(bench: Bench) -> None:
    bench.vm()
    shop = bench.shop()
    VmLedger(bench.desk(), VM).suspect("reaper")
    shop.pulse._once()
    assert not VmLedger(bench.desk(), VM).refresh().suspected


def test_the_work_does_not_wait_for_a_store_that_is_slow_to_answer_the_pulse(bench: Bench) -> None:
    bench.vm()
    shop = bench.shop()
    inside, answer = threading.Event(), threading.Event()
    refresh = shop.pulse._ledger.refresh

    def slow() -> object:
        inside.set()
        assert answer.wait(30)
        return refresh()

    shop.pulse._ledger.refresh = slow  # type: ignore[method-assign,assignment]
    beating = threading.Thread(target=shop.pulse._once)
    beating.start()
    assert inside.wait(30)
    shop.pulse.sign(running=3)
    assert shop.pulse.condemned() == ""
    assert shop.pulse.idle() == 0.0
    answer.set()
    beating.join(30)
    beat = read_heartbeat(bench.memory, VM, shop.desk.keyring)
    assert beat is not None
    assert beat.running == 3


# --- what the agent does between jobs ---


def test_a_warm_vm_takes_a_second_job_and_drains_after_its_window(bench: Bench, engine: type[FakeEngine]) -> None:
    bench.submit(2, 2)
    bench.submit(3, 3, job=OTHER_JOB)
    bench.vm()
    shop = bench.shop()
    sleep, given = bench.clock.sleep, []

    def sleeping(seconds: float) -> None:
        sleep(seconds)
        if not given and bench.job().final is not None:
            given.append(VmLedger(bench.desk(), VM).assign(OTHER_JOB, 5.0))

    bench.clock.sleep = sleeping  # type: ignore[method-assign]
    daemon._serve(shop)
    assert given == [True]
    assert bench.values(OTHER_JOB) == [0, 1, 2]
    fold = VmLedger(bench.desk(), VM).refresh()
    assert fold.drain is not None
    assert not VmLedger(bench.desk(), VM).assign(JOB, 5.0)


@pytest.mark.parametrize("late", [False, True])
def test_a_warm_vm_that_its_cloud_takes_back_is_not_given_a_further_job(
    bench: Bench, engine: type[FakeEngine], late: bool
) -> None:
    bench.submit(2, 2)
    bench.vm(keep_warm=3600.0)
    shop = bench.shop()
    sleep, drain, given = bench.clock.sleep, shop.pulse.drain, []

    def sleeping(seconds: float) -> None:
        sleep(seconds)
        # Given the notice at rest
        if shop.pulse.idle() > 1.0:
            shop.pulse.give_up("its cloud takes it back (spot interruption)")

    def draining(reason: str, jobs: int) -> bool:
        # and, in one case, a job that comes right then
        if late and not given:
            given.append(VmLedger(bench.desk(), VM).assign(OTHER_JOB, 5.0))
        return drain(reason, jobs)

    bench.clock.sleep = sleeping  # type: ignore[method-assign]
    shop.pulse.drain = draining  # type: ignore[method-assign]
    daemon._serve(shop)
    fold = VmLedger(bench.desk(), VM).refresh()
    assert fold.drain is not None
    assert fold.drain.reason.startswith("its cloud takes it back")
    assert given == [True] * late
    # Neither that one nor the next waits for it
    assert fold.phase == "draining"
    assert not VmLedger(bench.desk(), VM).assign(OTHER_JOB, 5.0)


def test_a_drain_loses_against_a_job_that_came_first(bench: Bench, engine: type[FakeEngine]) -> None:
    bench.submit(2, 2)
    bench.submit(3, 3, job=OTHER_JOB)
    bench.vm()
    shop = bench.shop()
    drain, tried = shop.pulse.drain, []

    def drain_late(reason: str, jobs: int, stay_until: float | None = None) -> bool:
        if not tried:
            assert VmLedger(bench.desk(), VM).assign(OTHER_JOB, 0.0)
        tried.append(jobs)
        return drain(reason, jobs, stay_until)

    shop.pulse.drain = drain_late  # type: ignore[method-assign]
    daemon._serve(shop)
    assert tried == [1, 2]
    assert bench.job(OTHER_JOB).final is not None


def test_a_job_has_a_warm_vm_for_no_longer_than_it_may(bench: Bench, engine: type[FakeEngine]) -> None:
    # Given a VM that may live for a day, and a job that may have it for ten minutes and does not come to its end
    bench.submit(2, 2)
    bench.submit(3, 3, job=OTHER_JOB)
    bench.vm()
    ledger, until = VmLedger(bench.desk(), VM), bench.clock.now() + 600
    assert ledger.assign(OTHER_JOB, 3600.0, until=until)
    engine.stuck = {2}
    shop = bench.shop(lease=1800.0)
    shop.pulse._once()
    assert lease(bench.folder) <= until + SAVING_MAX
    daemon._serve(shop)
    assert shop.pulse.condemned() == "maximum lifetime"
    assert until <= bench.clock.now() < until + 60
    # Then what had finished is kept, and the rest is left to others
    assert bench.job(OTHER_JOB).final is None
    assert bench.values(OTHER_JOB) == [0, 1]
    assert [shard.fold.owner for shard in bench.shards(OTHER_JOB)] == [""]


def test_a_vm_outlives_the_time_of_a_job_that_has_ended(bench: Bench, engine: type[FakeEngine]) -> None:
    bench.submit(2, 2)
    bench.submit(3, 3, job=OTHER_JOB)
    bench.vm()
    until = bench.clock.now() + 600
    assert VmLedger(bench.desk(), VM).assign(OTHER_JOB, 3600.0, until=until)
    shop = bench.shop(lease=1800.0)
    daemon._serve(shop)
    # It was kept warm for its hour
    assert bench.clock.now() > until + 1800
    fold = VmLedger(bench.desk(), VM).refresh()
    assert fold.drain is not None
    assert fold.drain.reason == "no work"


def test_money_that_is_spent_ends_a_vm_that_no_store_answers(bench: Bench, switch: Switch) -> None:
    # Ten cents, at a dollar an hour, on a VM that may live for a day
    bench.vm(usd_per_hour=1.0)
    began = bench.clock.now()
    assert VmLedger(bench.desk(), VM).assign(OTHER_JOB, 0.0, 0.1)
    shop = bench.shop(lease=1800.0)
    shop.pulse._once()
    last = began + 360 + SAVING_MAX
    assert lease(bench.folder) <= last + SAVING_MAX + 2
    switch.down = True
    bench.clock.sleep(300)
    assert not shop.pulse.condemned()
    bench.clock.sleep(130)
    assert shop.pulse.condemned() == "maximum cost"


def test_a_store_that_is_away_for_a_while_ends_no_agent(bench: Bench, switch: Switch, engine: type[FakeEngine]) -> None:
    bench.submit(4, 2)
    bench.vm()
    shop = bench.shop()
    sleep, began = bench.clock.sleep, bench.clock.now()

    def sleeping(seconds: float) -> None:
        sleep(seconds)
        passed = bench.clock.now() - began
        switch.down = passed < 300 or 320 < passed < 700

    switch.down = True
    bench.clock.sleep = sleeping  # type: ignore[method-assign]
    daemon._wait_until_ready(shop)
    daemon._serve(shop)
    assert bench.values() == [0, 1, 2, 3]
    assert VmLedger(bench.desk(), VM).refresh().drain is not None


def test_a_condemned_vm_stops_between_two_turns(bench: Bench, engine: type[FakeEngine]) -> None:
    bench.submit(4, 2)
    bench.vm()
    shop = bench.shop()
    engine.stuck = {3}

    def script(made: FakeEngine) -> None:
        if made.polls == 3:
            VmLedger(bench.desk(), VM).delete("asked for", "client")
            shop.pulse._once()

    engine.script = staticmethod(script)
    daemon._serve(shop)
    assert shop.pulse.condemned() == "asked for"
    assert bench.values() == [0, 1, 2]
    assert engine.made[0].closed


def test_a_vm_that_was_given_a_job_is_busy_before_it_begins(bench: Bench) -> None:
    bench.vm()
    shop = bench.shop()

    def busy() -> str:
        shop.pulse._once()
        beat = read_heartbeat(shop.desk.store, VM, shop.desk.keyring)
        assert beat is not None
        return beat.busy

    assert busy()
    shop.pulse.finished(1)
    shop.pulse.sign(busy="")
    assert not busy()
    # Whoever judges by this beat that the VM rests, and that nothing was appended since, judges rightly.
    assert VmLedger(bench.desk(), VM).assign(OTHER_JOB, 60.0)
    assert busy()


@pytest.mark.catalogue(46)
def test_a_lease_is_renewed_on_a_full_disk(tmp_path: Path) -> None:
    """A machine whose agent works must not end because one of its tasks took all space."""
    with small_disk(tmp_path / "disk", 1_000_000) as disk:
        path = str(disk / "lease")
        write_lease(path, "1700000000\n")
        with pytest.raises(OSError, match="No space"), open(disk / "endless", "wb", buffering=0) as file:
            while True:
                file.write(bytes(100_000))
        with pytest.raises(OSError, match="No space"), open(disk / "rest", "wb", buffering=0) as file:
            while True:
                file.write(bytes(1))
        write_lease(path, "1700000900\n")
        assert (disk / "lease").read_text() == "1700000900\n"
        assert sorted(os.listdir(disk)) == ["endless", "lease", "rest"]
        # What would be longer than the space that is there is refused, and leaves the lease as it was.
        with pytest.raises(OSError, match="No space"):
            write_lease(path, "17000009000\n")
        assert (disk / "lease").read_text() == "1700000900\n"
