"""What VMs cost, against a second computation that goes through their lives minute by minute."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field, replace

import pytest

from tests.sim.keys import FakeSigner, fake_keyring
from tests.unit.core.world import DEPLOYMENT, ManualClock, intent, job_spec, ready
from vmrun.core import keys
from vmrun.core.ids import first_id, is_id, new_id
from vmrun.core.ledger import Desk, JobLedger
from vmrun.core.records import Final, Submit
from vmrun.core.vm_ledger import VmLedger
from vmrun.store.memory import MemoryStore
from vmrun.watch.costs import By, Costs
from vmrun.watch.spending import known_vms, outlay, read_costs

MINUTE = 60.0
START = 1_700_006_400.0 - 1_700_006_400.0 % 86400
#: VMs of the whole test, and of the part that runs before each commit.
VMS, FEW = 1000, 100
FIGURES = ("hours", "on_demand", "spot", "disk", "address", "idle", "unpriced", "unpriced_disk", "unpriced_address")


@dataclass
class Life:
    """One VM as the test made it up; times are minutes since START, None for what did not happen."""

    on: str
    spot: bool
    price: float | None
    disk: float | None
    address: float | None
    intended: int
    boot_grace: int
    hard: int
    ends_itself: bool
    created: int | None = None
    failed: bool = False
    #: (job, given, ended)
    jobs: list[tuple[str, int, int | None]] = field(default_factory=list)
    drained: int | None = None
    gone: int | None = None


class History:
    """A store with journals, and what the test knows of them."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.store, self.clock = MemoryStore(), ManualClock()
        self.lives: list[Life] = []
        self.names: dict[str, str] = {}

    def desk(self, writer: str = "client") -> Desk:
        return Desk(self.store, self.clock, self.rng, fake_keyring(), FakeSigner(writer), DEPLOYMENT)

    def at(self, minute: float) -> None:
        self.clock.time = START + minute * MINUTE

    def make_up(self) -> Life:
        rng = self.rng
        born = rng.randrange(0, 40 * 1440)
        life = Life(
            on=rng.choice(("ec2", "gce", "ibm", "local")),
            spot=rng.random() < 0.4,
            price=rng.choice((None, 0.0, 0.75, 3.6, 12.34)),
            disk=rng.choice((None, 0.0, 0.0125)),
            address=rng.choice((None, 0.0, 0.005)),
            intended=born,
            boot_grace=rng.randrange(5, 16),
            hard=born + rng.randrange(60, 2000),
            ends_itself=rng.random() < 0.5,
        )
        kind = rng.random()
        if kind < 0.05:
            life.failed = True
            return life
        if kind < 0.10:  # nobody knows whether it was created
            life.jobs = [(new_id(self.clock, rng), born, None)]
            life.gone = born + rng.randrange(1, 40) if rng.random() < 0.7 else None
            return life
        life.created = born + rng.randrange(1, 4)
        now = life.created
        for _ in range(rng.randrange(1, 4)):
            given = now + rng.randrange(1, 30) if life.jobs else born
            ended = max(given, now) + rng.randrange(2, 400) if rng.random() < 0.9 else None
            life.jobs.append((new_id(self.clock, rng), given, ended))
            now = max(now, given) if ended is None else ended
            if ended is None:
                break
        if life.jobs[-1][2] is not None and rng.random() < 0.7:
            life.drained = now + rng.randrange(1, 20)
            now = life.drained
        if rng.random() < 0.8:
            life.gone = now + rng.randrange(1, 600)
        return life

    def write(self, life: Life) -> None:
        self.at(life.intended)
        vm = new_id(self.clock, self.rng)
        ledger = VmLedger(self.desk(), vm)
        first = life.jobs[0][0] if life.jobs else new_id(self.clock, self.rng)
        made = replace(
            intent(vm, first), on=life.on, spot=life.spot, usd_per_hour=life.price, disk_usd_per_hour=life.disk,
            address_usd_per_hour=life.address, boot_grace=life.boot_grace * MINUTE, poweroff_deletes=life.ends_itself,
            hard_deadline=START + life.hard * MINUTE,
        )  # fmt: skip
        assert ledger.intend(made)
        events: list[tuple[float, int, object]] = []
        if life.failed:
            events.append((life.intended, 0, lambda: ledger.failed("quota", "no")))
        if life.created is not None:
            events.append((life.created, 0, lambda: ledger.created("i-1")))
            events.append((life.created + 1, 1, lambda: ledger.ready(ready(vm))))
        for number, (job, given, ended) in enumerate(life.jobs):
            self._submit(job, given)
            if number:
                events.append((given, 2, lambda job=job: ledger.assign(job, 60.0)))
            if ended is not None:
                events.append((ended, 3, lambda job=job: JobLedger(self.desk(), job).finish(Final("done", 12, 0))))
        if life.drained is not None:
            events.append((life.drained, 4, lambda: ledger.drain("no work", jobs=len(life.jobs))))
        if life.gone is not None:
            events.append((life.gone, 5, lambda: ledger.gone("not found")))
        for minute, _, act in sorted(events, key=lambda event: event[:2]):
            self.at(minute)
            assert act()
        self.lives.append(life)

    def _submit(self, job: str, given: int) -> None:
        self.names[job] = f"job {len(self.names)}"
        self.at(given)
        spec = replace(job_spec(), name=self.names[job])
        assert JobLedger(self.desk(), job).submit(Submit(job, spec, DEPLOYMENT))


def minute_by_minute(lives: list[Life], by: By, since: int, until: int) -> dict[str, dict[str, float]]:
    """Dollars and hours, each minute looked at by itself: is the VM there, and what does it do?"""
    found: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for life in lives:
        for minute in range(max(since, life.intended), min(until, life.hard)):
            if not there(life, minute):
                continue
            job = ""
            for name, given, ended in life.jobs:
                if given <= minute:
                    job = "" if ended is not None and ended <= minute else name
            row = found[{By.job: job, By.day: str(int((START + minute * MINUTE) // 86400)), By.cloud: life.on}[by]]
            row["hours"] += 1 / 60
            for what, price in (
                ("spot" if life.spot else "on_demand", life.price),
                ("disk", life.disk),
                ("address", life.address),
            ):
                if price is None:
                    row["unpriced" if what in ("spot", "on_demand") else f"unpriced_{what}"] += 1 / 60
                    continue
                row[what] += price / 60
                row["idle"] += 0.0 if job else price / 60
    return found


def there(life: Life, minute: int) -> bool:
    """Whether the VM is to be paid for in the minute that begins now."""
    if life.failed or minute < life.intended or (life.created is not None and minute < life.created):
        return False
    if life.created is None and minute >= life.intended + life.boot_grace:
        return False
    if life.gone is not None and minute >= life.gone:
        return False
    return not (life.ends_itself and life.drained is not None and minute >= life.drained + 1)


@pytest.fixture(scope="module", params=[FEW, pytest.param(VMS, marks=pytest.mark.slow)])
def history(request: pytest.FixtureRequest) -> History:
    made = History(20)
    for _ in range(request.param):
        made.write(made.make_up())
    return made


@pytest.mark.parametrize("by", list(By), ids=lambda by: by.value)
@pytest.mark.parametrize("since", [0, 10 * 1440 + 77], ids=["all", "part"])
def test_a_history_of_a_thousand_journals_costs_what_its_minutes_cost(history: History, by: By, since: int) -> None:
    until = 39 * 1440 + 333
    history.at(until)
    costs = read_costs(history.desk(), by, START + since * MINUTE)
    expected = minute_by_minute(history.lives, by, since, until)
    assert set(costs.rows) == set(expected)
    for key, row in expected.items():
        for what in FIGURES:
            assert getattr(costs.rows[key], what) == pytest.approx(row[what], rel=1e-9, abs=1e-9), (key, what)
    total = sum(row[what] for row in expected.values() for what in ("on_demand", "spot", "disk", "address"))
    assert costs.total.total == pytest.approx(total, rel=1e-9)
    assert total > 1000
    assert outlay(history.desk(), START + since * MINUTE).spent == pytest.approx(total, rel=1e-9)
    if by is By.job:
        assert costs.rows[""].idle == pytest.approx(costs.rows[""].total)
        assert costs.names == {job: history.names[job] for job in costs.rows if job}


def test_ended_vms_are_found_without_the_index(history: History) -> None:
    desk = history.desk()
    assert list(desk.store.list(keys.VMS_INDEX)) == []
    found = list(known_vms(desk, START))
    assert len(found) == len(history.lives)
    assert found == sorted(found)
    # Those that cannot have lived since are not even listed
    assert list(known_vms(desk, START + 500 * 86400.0)) == []


def test_the_first_id_of_a_moment_is_below_all_of_that_moment_and_above_those_before() -> None:
    clock, rng = ManualClock(), random.Random(1)
    before = new_id(clock, rng)
    clock.time += 0.5
    assert is_id(first_id(clock.time))
    assert before < first_id(clock.time) <= new_id(clock, rng)


def test_a_journal_that_cannot_be_trusted_is_counted_as_such() -> None:
    made = History(3)
    for _ in range(5):
        made.write(made.make_up())
    made.store.replace(keys.entry(keys.vm_journal(next(known_vms(made.desk(), START))), 0), b"rubbish")
    costs = read_costs(made.desk(), By.cloud, START)
    assert costs.unreadable == 1


def test_nothing_was_spent_where_nothing_lived() -> None:
    made = History(3)
    costs = read_costs(made.desk(), By.day, START)
    assert (costs.rows, costs.total.total, costs.vms) == ({}, 0.0, 0)
    assert isinstance(costs, Costs)
