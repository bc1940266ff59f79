"""What a client does for a job's machine after it was got: keep it, replace it, give it back."""

from __future__ import annotations

import contextlib
import dataclasses
import random
from collections.abc import Callable, Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from tests.support.meanwhile import Meanwhile
from tests.unit.core.world import DEPLOYMENT, JOB, OTHER_JOB, an_id, job_spec
from tests.unit.fleet.world import Fleet
from vmrun.client import REVIVE_AFTER, Client
from vmrun.core import keys
from vmrun.core.clock import SystemClock
from vmrun.core.clouds import Fault
from vmrun.core.errors import BudgetError, CapacityError, Corrupt, StoreUnavailable, UsageError
from vmrun.core.ledger import JobLedger, ShardLedger
from vmrun.core.model import JobState
from vmrun.core.outgrown import Outgrown
from vmrun.core.records import Final, Submit
from vmrun.fleet.lookout import ORDINARY, Lookout
from vmrun.fleet.losses import Losses
from vmrun.fleet.memory import Memory
from vmrun.fleet.order import Timings
from vmrun.fleet.presence import present
from vmrun.fleet.retire import retire
from vmrun.fleets import Fleets
from vmrun.handle import JobHandle, waiting_for
from vmrun.provisioners.fake import FakeCloud
from vmrun.settings import load_settings
from vmrun.store.faulty import Fault as StoreFault
from vmrun.store.faulty import FaultsAt, FaultyStore, When
from vmrun.submit.prepare import Submission
from vmrun.submit.publish import job_of, publish
from vmrun.submit.request import SubmitRequest
from vmrun.submitting import OnStage, Submitting
from vmrun.watch.observe import JobObserver, find_by_key, job_ids
from vmrun.watch.results import ResultReader


class OwnClient(Client):
    """A client of a fleet in memory; what it would rent it only notes."""

    def __init__(self, fleet: Fleet) -> None:
        wiring: Any = SimpleNamespace(desk=fleet.deck.desk, deck=fleet.deck, timings=lambda on: Timings(poll_max=1.0))
        self._wiring = wiring
        self._brought: dict[str, list[str]] = {}
        self._ledgers: dict[str, JobLedger] = {}
        self.fleets = Fleets(wiring, lambda _: None)
        self._losses = Losses(lambda: fleet.deck)
        self.rented: list[str] = []

    def bring_up(self, job: str, on_stage: object = None) -> str:
        self.rented.append(job)
        return ""

    def brought(self, job: str, vm: str) -> None:
        self._brought[job] = [vm]


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


@pytest.fixture
def client(fleet: Fleet) -> OwnClient:
    return OwnClient(fleet)


@pytest.fixture
def job(fleet: Fleet) -> JobLedger:
    ledger = JobLedger(fleet.desk(), JOB)
    assert ledger.submit(Submit(JOB, job_spec(tasks=4), DEPLOYMENT))
    fleet.clock.sleep(REVIVE_AFTER + 1)
    return ledger


def lose(fleet: Fleet) -> None:
    for machine in fleet.cloud.alive():
        fleet.cloud.take_away(machine.id)
    fleet.clock.sleep(3600)


def test_a_machine_is_given_back_with_its_job(fleet: Fleet, client: OwnClient, job: JobLedger) -> None:
    client.brought(JOB, fleet.vm(JOB))
    client.settle(JOB)
    assert fleet.running == fleet.indexed == set()
    client.settle(JOB)


def test_values_come_before_the_machine_is_given_back(
    fleet: Fleet, client: OwnClient, job: JobLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = fleet.vm(JOB)
    client.brought(JOB, vm)
    job.finish(Final("done", 4, 0))
    monkeypatch.setattr(ResultReader, "values", lambda reader: iter([0, 1]))
    values = JobHandle(client, JOB).results()
    assert next(values) == 0
    assert fleet.running == {vm}
    assert list(values) == [1]
    assert fleet.running == fleet.indexed == set()


def test_whoever_wants_no_more_values_does_not_wait_until_the_machine_is_gone(
    fleet: Fleet, client: OwnClient, job: JobLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.brought(JOB, fleet.vm(JOB))
    fleet.cloud.knobs = dataclasses.replace(fleet.cloud.knobs, vanish=(60.0, 60.0))
    job.finish(Final("done", 4, 0))
    monkeypatch.setattr(ResultReader, "values", lambda reader: iter([0, 1]))
    values = JobHandle(client, JOB).results()
    assert next(values) == 0
    began = fleet.clock.now()
    assert isinstance(values, Generator)
    values.close()
    assert fleet.clock.now() - began < 5
    assert "delete" in [call.verb for call in fleet.cloud.calls]


def test_a_machine_that_is_to_stay_warm_stays(fleet: Fleet, client: OwnClient, job: JobLedger) -> None:
    vm = fleet.vm(JOB, keep_warm=60.0)
    client.brought(JOB, vm)
    client.settle(JOB)
    assert fleet.running == {vm}


def test_a_machine_that_works_for_another_job_already_is_left_to_it(
    fleet: Fleet, client: OwnClient, job: JobLedger
) -> None:
    vm = fleet.vm(JOB, keep_warm=60.0)
    client.brought(JOB, vm)
    # The other one does not want it warm afterwards
    assert fleet.ledger(vm).assign(OTHER_JOB, 0.0)
    client.settle(JOB)
    assert fleet.running == {vm}


def test_a_job_gets_another_machine_only_when_its_own_is_gone(fleet: Fleet, client: OwnClient, job: JobLedger) -> None:
    fleet.vm(JOB)
    client.revive(JOB)
    assert client.rented == []
    lose(fleet)
    # A cloud that does not answer has not said that the machine is gone
    fleet.cloud.fail("get", Fault.unavailable)
    client.revive(JOB)
    assert client.rented == []
    client.revive(JOB)
    assert client.rented == [JOB]


def test_a_machine_that_its_cloud_does_not_show_yet_is_not_replaced(
    fleet: Fleet, client: OwnClient, job: JobLedger
) -> None:
    fleet.cloud.capabilities = dataclasses.replace(fleet.cloud.capabilities, settle=60.0)
    fleet.cloud.knobs = dataclasses.replace(fleet.cloud.knobs, appear=(30.0, 30.0))
    vm = fleet.vm(JOB, ready=False)
    # As `vmrun wait` does, right after a submit in the background
    client.revive(JOB)
    assert client.rented == []
    assert not fleet.ledger(vm).fold.ended


def test_a_machine_that_leaves_its_job_is_replaced_before_it_is_gone(
    fleet: Fleet, client: OwnClient, job: JobLedger
) -> None:
    vm, plan, other = fleet.vm(JOB), next(job.refresh().shards()), OwnClient(fleet)
    assert ShardLedger(fleet.desk(f"vm:{vm}"), JOB, plan).claim(vm)
    assert fleet.ledger(vm).drain("its cloud takes it back", jobs=1)
    client.revive(JOB)
    # Another client that waits for the same job leaves it to the first
    other.revive(JOB)
    assert (client.rented, other.rented) == ([JOB], [])


@pytest.mark.parametrize("brought", [True, False])
def test_a_job_that_ends_while_its_machine_is_asked_after_has_lost_none(
    fleet: Fleet, client: OwnClient, job: JobLedger, monkeypatch: pytest.MonkeyPatch, brought: bool
) -> None:
    vm = fleet.vm(JOB, spot=True)
    lost = client._losses.is_lost

    def asked(vm: str) -> bool:
        # It ended, and its machine left it, after its journal was read
        assert job.finish(Final("done", 4, 0))
        assert fleet.ledger(vm).drain("no work", jobs=1)
        return lost(vm)

    monkeypatch.setattr(client._losses, "is_lost", asked)
    if brought:
        client.brought(JOB, vm)
        client.replace_lost(JOB)
    else:
        client.revive(JOB)
    assert client.rented == []
    # Nobody is told that spot machines of this kind are taken back, and nobody took its loss on
    assert Memory(fleet.deck.cache_dir).recall(fleet.clock.now()) == []
    assert fleet.ledger(vm).fold.relieved_by == ""


@pytest.mark.parametrize("outgrown", [True, False])
def test_a_search_that_found_nothing_ends_no_job_that_another_client_got_a_machine(
    fleet: Fleet, client: OwnClient, job: JobLedger, monkeypatch: pytest.MonkeyPatch, outgrown: bool
) -> None:
    vm, plan = fleet.vm(JOB), next(job.refresh().shards())
    assert ShardLedger(fleet.desk(f"vm:{vm}"), JOB, plan).claim(vm)
    if outgrown:
        small = Outgrown(vm, memory=1 << 30, workers=2, task=0, peak=1, limit=1, message="too small", since=0.0)
        assert JobLedger(fleet.desk(f"vm:{vm}"), JOB).outgrow(small)
    assert fleet.ledger(vm).drain("its cloud takes it back", jobs=1)
    nothing = CapacityError("nothing is to be had")
    nothing.data["tried"] = []

    def search(job: str, observer: JobObserver) -> None:
        fleet.vm(JOB)
        raise nothing

    handle, lookout = JobHandle(client, JOB), Lookout(fleet.clock)
    monkeypatch.setattr(client, "see_to", search)
    monkeypatch.setattr(lookout.again, "missed", lambda: False)
    assert handle.status().stranded
    assert handle._see_to(lookout) == ""
    assert client.give_up(JOB, nothing) is False
    assert job.refresh().final is None


def test_a_vm_that_goes_while_vms_are_listed_is_not_among_them(fleet: Fleet, client: OwnClient) -> None:
    there, goes = fleet.vm(JOB), fleet.vm(OTHER_JOB)
    entry = keys.entry(keys.vm_journal(goes), 0)
    store = Meanwhile(fleet.memory, entry, lambda: retire(fleet.deck, goes, "its job ended", lambda _: None))
    found = present(dataclasses.replace(fleet.desk(), store=store), lambda: fleet.deck)
    assert fleet.indexed == {there}
    assert [view.id for view in found] == [there]


def test_what_was_read_of_journals_is_not_read_at_each_look(
    fleet: Fleet, client: OwnClient, job: JobLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an executor's job and its machine, of which much was said
    vm, read, get = fleet.vm(JOB), list[str](), fleet.memory.get
    for at in range(20):
        assert fleet.ledger(vm).stay(float(at + 1))
        assert job.enlist(an_id("abcdefghjkmnpqrstvwx"[at]))
    client.brought(JOB, vm)
    client.replace_lost(JOB)

    def counted(key: str, start: int = 0, end: int | None = None) -> bytes:
        read.append(key)
        return get(key, start, end)

    monkeypatch.setattr(fleet.memory, "get", counted)
    client.replace_lost(JOB)
    assert 0 < len(read) <= 5
    assert client.rented == []


def test_a_machine_that_is_being_ended_is_replaced_at_once_and_seen_off_later(
    fleet: Fleet, client: OwnClient, job: JobLedger
) -> None:
    vm = fleet.vm(JOB)
    (machine,) = fleet.cloud.alive()
    fleet.cloud.knobs = dataclasses.replace(fleet.cloud.knobs, vanish=(500.0, 500.0))
    fleet.cloud.delete(machine.id)
    client.revive(JOB)
    assert client.rented == [JOB]
    assert fleet.ledger(vm).fold.gone is None
    # While its job goes on elsewhere it is not deleted at each look
    fleet.vm(JOB)
    client.revive(JOB)
    deleted = [call.verb for call in fleet.cloud.calls].count("delete")
    for _ in range(4):
        fleet.clock.sleep(ORDINARY / 5)
        client.revive(JOB)
    assert [call.verb for call in fleet.cloud.calls].count("delete") == deleted
    # And it does not count as one that costs money for longer than it is there
    fleet.clock.sleep(600)
    client.revive(JOB)
    assert fleet.ledger(vm).fold.gone is not None
    assert client.rented == [JOB]


def test_a_machine_on_its_way_is_seen_although_an_earlier_one_had_begun(
    fleet: Fleet, client: OwnClient, job: JobLedger
) -> None:
    # Given a job whose work was claimed by a machine that is lost
    lost, plan = fleet.vm(JOB), next(job.refresh().shards())
    assert ShardLedger(fleet.desk(f"vm:{lost}"), JOB, plan).claim(lost)
    assert fleet.ledger(lost).gone("taken back")
    fleet.vm(JOB, ready=False)
    client.revive(JOB)
    assert client.rented == []


def test_a_job_that_lost_its_machine_says_so(fleet: Fleet, client: OwnClient, job: JobLedger) -> None:
    vm = fleet.vm(JOB)
    view = JobObserver(fleet.desk(), JOB).look()
    assert (view.state, view.lost) == (JobState.running, False)
    assert fleet.ledger(vm).drain("its cloud takes it back", jobs=1)
    view = JobObserver(fleet.desk(), JOB).look()
    assert (view.state, view.lost) == (JobState.pending, True)
    assert "its machine is lost; `vmrun wait" in waiting_for(view)
    # Once it has ended nothing is lost
    job.finish(Final("done", 4, 0))
    assert not JobObserver(fleet.desk(), JOB).look().lost


def test_no_machine_is_rented_to_say_that_a_job_was_cancelled(fleet: Fleet, client: OwnClient, job: JobLedger) -> None:
    fleet.vm(JOB)
    job.cancel("user")
    lose(fleet)
    client.revive(JOB)
    assert client.rented == []
    final = job.refresh().final
    assert final is not None
    assert final.outcome == "cancelled"


def test_a_job_that_ended_is_not_revived(client: OwnClient, job: JobLedger) -> None:
    job.finish(Final("done", 4, 0))
    client.revive(JOB)
    assert client.rented == []


def test_an_executors_lost_machine_is_replaced(fleet: Fleet, client: OwnClient, job: JobLedger) -> None:
    client.replace_lost(JOB)
    client.brought(JOB, fleet.vm(JOB))
    client.replace_lost(JOB)
    assert client.rented == []
    lose(fleet)
    client.replace_lost(JOB)
    assert client.rented == [JOB]


def test_an_executor_ends_although_its_machine_says_nothing(fleet: Fleet, client: OwnClient, job: JobLedger) -> None:
    client.brought(JOB, fleet.vm(JOB))
    before = fleet.clock.now()
    client.finish(JOB)
    assert fleet.clock.now() - before < 300
    assert fleet.running == set()


def test_an_executor_that_never_got_a_machine_cancels_its_job(client: OwnClient, job: JobLedger) -> None:
    client.finish(JOB)
    assert job.refresh().cancelled_by == "executor"


class Waiting(Client):
    """A client whose jobs wait for their machines: the process in the background has not come to that yet."""

    def continue_in_background(self, job: str) -> None:
        pass


class Interrupted(Submitting):
    """Others do something between the look at the budget and the job's entry."""

    meanwhile: ClassVar[list[Callable[[], object]]] = []

    def write(self, submission: Submission, stage: OnStage, key: str = "") -> tuple[str, bool]:
        while self.meanwhile:
            self.meanwhile.pop()()
        return super().write(submission, stage, key)


@pytest.mark.parametrize("at_once", [False, True])
def test_two_submits_do_not_both_get_what_the_budget_has_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.py").write_text("print(1)\n")
    settings = load_settings(
        {"store.url": f"file://{tmp_path}/store", "local.usd_per_hour": 36.0, "budget.usd_per_day": 5.0}
    )

    def submit() -> str:
        return Waiting(settings).submit(SubmitRequest(target="job.py", max_cost=3.0), detach=True).id

    if at_once:
        monkeypatch.setattr("vmrun.client.Submitting", Interrupted)
        Interrupted.meanwhile.append(submit)
    else:
        submit()
    with pytest.raises(BudgetError, match=r"\$3.00 does not fit into the budget: .* or wait may cost \$3.00 more"):
        submit()
    states = [view.state for view in Waiting(settings).jobs()]
    assert states == [JobState.failed, JobState.pending] if at_once else [JobState.pending]


def test_two_submits_at_once_with_one_key_make_one_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.py").write_text("print(1)\n")
    settings = load_settings({"store.url": f"file://{tmp_path}/store"})

    def submit() -> str:
        return Waiting(settings).submit(SubmitRequest(target="job.py", idempotency_key="k"), detach=True).id

    # Both have looked, and found none
    monkeypatch.setattr("vmrun.client.Submitting", Interrupted)
    other: list[str] = []
    Interrupted.meanwhile.append(lambda: other.append(submit()))
    assert [submit()] == other
    assert [view.id for view in Client(settings).jobs()] == other
    assert submit() == other[0]


def test_a_submit_goes_on_with_the_key_of_one_that_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.py").write_text("print(1)\n")
    client = Waiting(load_settings({"store.url": f"file://{tmp_path}/store"}))
    job = job_of(client.desk, "k")
    assert client.submit(SubmitRequest(target="job.py", idempotency_key="k"), detach=True).id == job
    client.desk.store.create(keys.submission("other"), job.encode())
    with pytest.raises(Corrupt, match="another idempotency key"):
        client.submit(SubmitRequest(target="job.py", idempotency_key="other"), detach=True)


@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER, When.LATE])
def test_a_client_that_dies_anywhere_in_a_submit_leaves_its_job_to_the_next_one(tmp_path: Path, when: When) -> None:
    for died in range(20):
        world = Fleet(tmp_path)
        store = FaultyStore(world.memory, FaultsAt({died: StoreFault(when)}), world.rng)
        desk, spec = dataclasses.replace(world.desk(), store=store), job_spec(tasks=4)
        with contextlib.suppress(StoreUnavailable):
            publish(desk, DEPLOYMENT, job_of(desk, "k"), spec, "k")
        again = world.desk()
        job = find_by_key(again, "k") or job_of(again, "k")
        publish(again, DEPLOYMENT, job, spec, "k")
        store.deliver()
        assert job_ids(world.desk()) == [job]
        assert find_by_key(world.desk(), "k") == job
        assert JobLedger(world.desk(), job).refresh().final is None
    # It died at each of its requests
    assert 3 < store.requests <= died


def test_a_submit_of_no_tasks_does_not_end_the_job_of_its_key(fleet: Fleet) -> None:
    desk = fleet.desk()
    job = job_of(desk, "k")
    assert publish(desk, DEPLOYMENT, job, job_spec(tasks=4), "k")
    # It looked for a job of its key before that one stood there
    assert not publish(desk, DEPLOYMENT, job_of(desk, "k"), job_spec(tasks=0), "k")
    assert JobLedger(desk, job).refresh().final is None


def test_a_job_is_not_written_for_machines_that_cannot_see_its_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.py").write_text("print(1)\n")
    settings = load_settings({"store.url": f"file://{tmp_path}/store"})
    cloud = FakeCloud(SystemClock(), random.Random(1), name="ec2")
    client = Client(settings)
    monkeypatch.setattr(client._wiring, "_provisioner", {"ec2": cloud}.__getitem__)
    with pytest.raises(UsageError, match="a machine on ec2 cannot see the store file://"):
        client.submit(SubmitRequest(target="job.py", on="ec2"))
    assert not (tmp_path / "store").exists()
    assert [call for call in cloud.calls if call.verb == "create"] == []
