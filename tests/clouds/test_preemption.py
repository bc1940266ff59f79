"""A spot machine is taken back in the middle of a job, on each cloud: only what was not finished runs again."""

from __future__ import annotations

import json
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.clouds.journeys import Journey, bridge, journey
from tests.clouds.opening import NAMES
from tests.clouds.server import Reply, Request, Server
from tests.clouds.trouble import Call
from tests.docker.machines import engine_fault
from tests.support.shell import kill, processes, until
from vmrun.core import keys
from vmrun.core.clock import SystemClock
from vmrun.core.folds import VmFold
from vmrun.core.ledger import JobLedger, ShardLedger
from vmrun.core.records import Results
from vmrun.core.vm_ledger import VmLedger
from vmrun.fleet.lookout import SPOT

pytestmark = [pytest.mark.docker, pytest.mark.e2e, pytest.mark.timeout(900)]

#: Clouds that tell a machine, from inside, that it will be taken back, and how many seconds before.
TELLING = {"ec2": 120.0, "gce": 30.0}
#: What a look at one machine is, where nothing else tells of its end.
LOOK = "get_instance"
NEED = ("--cpus", "2", "--memory", "4GB", "--arch", "x86_64")
#: Tasks, and how many are finished before the machine is taken.
TASKS, FINISHED = 60, 12
#: Seconds of each at first, so that a busy computer that is slow to take the machine does so before all is done; and
#: then.
SLOW, QUICK = 3.0, 0.5
#: The same where time is measured: of those that run then, each is lost after some seconds, as in a real job, so many
#: that a computer that stands still for a while is no slow client; and none is through before.
FEW, LONGER, BEFORE, INTO = 12, 240.0, 4, 20.0
WORKERS = 2
TELL = """
    import os, time, urllib.request
    import vmrun

    def tell(what, task):
        url = f"http://{os.environ['LEDGER']}/{what}/{task}"
        return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=60).read()
"""


def job_of(tasks: int) -> str:
    """A program of as many tasks; each takes as long as it is told."""
    return f"""{TELL}
    @vmrun.job(over=range({tasks}), workers={WORKERS}, retries=0)
    def task(x):
        time.sleep(float(tell("begin", x)))
        tell("end", x)
        return x * x
"""


#: One task of as many steps, which saves itself after each.
LONG = f"""{TELL}
    @vmrun.job
    def task():
        first = step = vmrun.restored(0)
        while step < {TASKS}:
            time.sleep(float(tell("begin", step)))
            step += 1
            vmrun.checkpoint(step)
        return [first, step]
"""


class Witness:
    """Is told by each task that it begins, and that it ends; stands outside of all that may be lost.

    It tells each how long to take.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: What, which task, and when (seconds since the epoch), in order.
        self.events: list[tuple[str, int, float]] = []
        #: Seconds of those that begin next, in order, and of all after them.
        self.next: list[float] = []
        self.seconds = QUICK
        self._server = Server(self._answer, bridge())
        self.address = self._server.endpoint.removeprefix("http://")

    def _answer(self, request: Request) -> Reply:
        what, task = request.path.strip("/").split("/")
        with self._lock:
            self.events.append((what, int(task), SystemClock().now()))
            seconds = self.next.pop(0) if what == "begin" and self.next else self.seconds
        return Reply(200, str(seconds).encode())

    def times(self, what: str) -> dict[int, list[float]]:
        """By task, when it did that."""
        found: dict[int, list[float]] = {}
        with self._lock:
            for each, task, at in self.events:
                if each == what:
                    found.setdefault(task, []).append(at)
        return found

    def busy_for(self, seconds: float) -> bool:
        """Whether all workers have been in a task for so long."""
        ends, now = self.times("end"), SystemClock().now()
        since = [at for task, (at, *_) in self.times("begin").items() if task not in ends]
        return len(since) == WORKERS and now - max(since) >= seconds

    def close(self) -> None:
        self._server.close()


@pytest.fixture
def witness() -> Iterator[Witness]:
    if fault := engine_fault():
        pytest.skip(fault)
    made = Witness()
    yield made
    made.close()


@pytest.fixture(params=NAMES)
def trip(request: pytest.FixtureRequest, isolated: Path, tmp_path: Path) -> Iterator[Journey]:
    """A cloud whose machines may ask about themselves, in an account that `vmrun init` has made ready."""
    if fault := engine_fault():
        pytest.skip(fault)
    with journey(request.param, isolated, tmp_path / "s3.log", metadata=True) as made:
        made.shell.run("init", made.cloud, "--yes")
        yield made


def entries(trip: Journey, job: str) -> Counter[int]:
    """How many entries of the shards' journals hold an outcome of each task."""
    client, found = trip.client, Counter[int]()
    ledger = JobLedger(client.desk, job)
    for plan in ledger.refresh().shards():
        for entry, _ in ShardLedger(client.desk, job, plan).refresh():
            if isinstance(entry.body, Results):
                found.update(
                    task for block in entry.body.blocks for task in range(block.first, block.first + block.count)
                )
    return found


def the_job(trip: Journey) -> str:
    (job,) = trip.client.jobs()
    return job.id


def machine(trip: Journey, number: int) -> VmFold:
    """The machine of a create call, as its journal tells it."""
    vm = str(trip.creates()[number].about["name"]).rpartition("-")[2]
    return VmLedger(trip.client.desk, vm).refresh()


def beats(trip: Journey, number: int) -> bool:
    """Whether the agent of such a machine works: it is started after READY, and needs no client from then on."""
    vm = str(trip.creates()[number].about["name"]).rpartition("-")[2]
    return bool(list(trip.client.desk.store.list(keys.heartbeat(vm))))


def take_back(trip: Journey, number: int = 0, *, replaced: bool = False) -> float:
    """As the cloud does: with its notice, and then without mercy; when that began, in seconds since the epoch.

    With `replaced` it comes for a machine that told of its notice only after the create call of another one.
    """
    name, at = str(trip.creates()[number].about["name"]), SystemClock().now()
    if trip.cloud in TELLING:
        trip.double.announce(name)
        drained = until(lambda: machine(trip, number).drain, 120, "the agent hears of it and leaves")
        assert "its cloud takes it back" in drained.reason
        if replaced:
            until(lambda: len(trip.creates()) > number + 1, 240, "another machine is asked for")
    # It may have ended by itself before that.
    with suppress(ValueError, KeyError):
        trip.double.preempt(name)
    return at


def ended(client: subprocess.Popen[str], seconds: float) -> Any:
    """The document of an attached submit."""
    out, err = client.communicate(timeout=seconds)
    assert client.returncode == 0, out + err
    return json.loads(out)


def test_only_what_was_not_finished_runs_again(trip: Journey, witness: Witness) -> None:
    before = trip.double.inventory()
    trip.shell.write("job.py", job_of(FEW))
    witness.next = [QUICK] * BEFORE + [LONGER] * WORKERS
    # Given a job on a spot machine, in the middle of it
    client = trip.shell.start(
        "submit", "--on", trip.cloud, "--spot", *NEED, "--env", f"LEDGER={witness.address}", "--json", "job.py"
    )
    until(lambda: client.poll() is not None or len(witness.times("end")) >= BEFORE, 300, "tasks run")
    job = the_job(trip)
    until(lambda: client.poll() is not None or len(entries(trip, job)) >= BEFORE, 60, "they are committed")
    until(lambda: client.poll() is not None or witness.busy_for(INTO), 60, "the next ones have run for a while")
    committed, finished = set(entries(trip, job)), set(witness.times("end"))
    # When the cloud takes it back
    lost_at = take_back(trip, replaced=True)
    document = ended(client, 400)
    # Then the job is done, on two machines, both spot
    assert document["job"]["tasks"] == {"total": FEW, "done": FEW, "failed": 0, "running": 0}
    assert trip.shell.ask("result", job)["results"] == [x * x for x in range(FEW)]
    first, second = machine(trip, 0), machine(trip, 1)
    assert len(trip.creates()) == 2
    assert all(fold.intent is not None and fold.intent.spot for fold in (first, second))
    # And no finished task ran twice: not by what it did, not by the journals
    begun = {task: len(times) for task, times in witness.times("begin").items()}
    kept = finished if trip.cloud in TELLING else committed
    assert {task for task in kept if begun[task] != 1} == set()
    again = {task for task, count in begun.items() if count > 1}
    assert len(again) <= WORKERS + (0 if trip.cloud in TELLING else len(finished - committed) + WORKERS)
    assert entries(trip, job) == Counter(range(FEW))
    # And it took no longer than that must take
    check_time(trip, witness, first.drained_at or lost_at)
    check_detection(trip, first, lost_at)
    # And nothing is left
    until(lambda: trip.double.inventory() == before, 90, "the account is empty")
    assert trip.shell.ask("reap")["verdicts"] == []


@pytest.mark.parametrize("trip", ["ec2"], indirect=True)
def test_with_nobody_attached_the_process_in_the_background_replaces_it_and_without_that_the_job_says_so(
    trip: Journey, witness: Witness
) -> None:
    before = trip.double.inventory()
    trip.shell.write("job.py", job_of(TASKS))
    witness.seconds = SLOW
    # Given a job that was left, on a spot machine
    job = trip.shell.submit(
        "--on", trip.cloud, "--spot-with-fallback", *NEED, "--env", f"LEDGER={witness.address}", "job.py"
    )
    until(lambda: len(witness.times("end")) >= 6, 300, "tasks run")
    # When the machine is taken back, the process that was left gets another one
    take_back(trip)
    until(lambda: len(trip.creates()) == 2 and beats(trip, 1), 240, "another machine is got")
    (behind,) = processes(f"_bring-up {job}")
    kill(behind)
    # And when that one is taken too, and nobody is left, the job says so
    until(lambda: len(witness.times("end")) >= 20, 240, "tasks run again")
    take_back(trip, 1)
    said = until(lambda: (found := trip.shell.ask("status", job)["job"])["lost"] and found, 60, "the job says so")
    assert said["state"] == "pending"
    assert f"`vmrun wait {job}`" in trip.shell.run("status", job).stdout
    witness.seconds = QUICK
    # And whoever waits for it gets it a third one, on demand by now
    assert trip.shell.wait(job, 400)["state"] == "done"
    spot = [fold.intent.spot for fold in (machine(trip, number) for number in range(3)) if fold.intent is not None]
    assert spot == [True, True, False]
    assert trip.shell.ask("result", job)["results"] == [x * x for x in range(TASKS)]
    begun = [len(times) for times in witness.times("begin").values()]
    assert sum(begun) - TASKS <= 2 * WORKERS
    assert entries(trip, job) == Counter(range(TASKS))
    until(lambda: trip.double.inventory() == before, 90, "the account is empty")


@pytest.mark.parametrize("trip", ["ec2", "ibm"], indirect=True)
def test_a_long_task_goes_on_from_what_it_saved(trip: Journey, witness: Witness) -> None:
    before = trip.double.inventory()
    trip.shell.write("long.py", LONG)
    witness.seconds = SLOW / 3
    client = trip.shell.start(
        "submit", "--on", trip.cloud, "--spot", *NEED, "--env", f"LEDGER={witness.address}", "--json", "long.py"
    )
    until(lambda: client.poll() is not None or len(witness.times("begin")) >= FINISHED, 300, "steps are taken")
    taken = len(witness.times("begin"))
    take_back(trip)
    witness.seconds = QUICK
    document = ended(client, 400)
    ((first, last),) = trip.shell.ask("result", document["job"]["id"])["results"]
    assert last == TASKS
    # Without a notice it has what was carried every second at first
    assert first >= taken - (1 if trip.cloud in TELLING else 1 + taken // 2)
    again = [step for step, times in witness.times("begin").items() if len(times) > 1]
    assert len(again) <= (1 if trip.cloud in TELLING else 1 + taken // 2)
    assert sorted(witness.times("begin")) == list(range(TASKS))
    until(lambda: trip.double.inventory() == before, 90, "the account is empty")


def check_time(trip: Journey, witness: Witness, left_at: float) -> None:
    """The whole grew by less than the second boot and the time of the lost tasks, with what it took to notice.

    All of it is taken from what was recorded in this run. What the work itself takes, on a busy computer, is the same
    with and without the loss: so the growth is the time from the last outcome of the first machine that was kept to the
    first begin of a task on the second one.
    """
    begins, ends = witness.times("begin"), witness.times("end")
    first, second = machine(trip, 0), machine(trip, 1)
    created, ready_at = trip.creates()[1].at, second.ready_at
    resumed = min(at for times in begins.values() for at in times if at > ready_at)
    kept = max(times[0] for task, times in ends.items() if len(begins[task]) == 1 and times[0] < resumed)
    lost = [max(0.0, left_at - times[0]) for times in begins.values() if len(times) > 1]
    grown, boot, noticed = resumed - kept, resumed - created, created - left_at
    print(f"grown {grown:.1f} s; boot {boot:.1f} s; {len(lost)} lost: {sum(lost):.1f} s; noticed after {noticed:.1f} s")
    seen, chosen = first.relieved_at - left_at, second.intended_at - left_at
    asked = [f"{call.at - left_at:.1f} {call.operation}" for call in trip.double.script.calls if call.at > left_at]
    print(f"asked of the cloud: {', '.join(each for each in asked if float(each.split()[0]) <= noticed)}")
    print(f"its loss was seen after {seen:.1f} s, an offer chosen after {chosen:.1f} s")
    assert noticed > 0
    # What both workers lose is more than one of them waits for the loss to be noticed
    assert len(lost) >= WORKERS
    assert grown < boot + sum(lost)


def check_detection(trip: Journey, first: VmFold, lost_at: float) -> None:
    """With a notice the other machine was asked for before the cloud took the first one; without, at the next look."""
    created = trip.creates()[1].at
    if trip.cloud in TELLING:
        assert created < lost_at + TELLING[trip.cloud]
        return
    looks = [call.at for call in trip.double.script.calls if call.operation == LOOK and about(call, first)]
    working = [at for at in looks if first.ready_at < at < lost_at]
    after = [at for at in looks if lost_at <= at <= first.relieved_at]
    print(f"{len(working)} looks in {lost_at - first.ready_at:.1f} s of work, then {len(after)} until it was noticed")
    # One of them may have been on its way when it was taken back
    assert 1 <= len(after) <= 2
    # And they are no more than so many in a minute
    assert len(working) <= 1 + (lost_at - first.ready_at) / SPOT


def about(call: Call, fold: VmFold) -> bool:
    """Whether a call is about this machine."""
    known = {fold.cloud_id, fold.cloud_id.rpartition("/")[2], *([fold.intent.name] if fold.intent else ())}
    return any(value in known for value in call.about.values() if isinstance(value, str))
