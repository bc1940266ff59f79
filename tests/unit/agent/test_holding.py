"""A machine that stays for debugging after its job failed: for how long, for whom, and what lies there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from greenlet import getcurrent, greenlet

from tests.support.source import ROOT
from tests.unit.agent.bench import Bench, FakeEngine
from tests.unit.core.world import JOB, OTHER_JOB, OTHER_VM, VM
from vmrun.agent import daemon, holding, way_in
from vmrun.agent.pulse import HOLD_MARGIN
from vmrun.agent.way_in import WayIn, read_way_in
from vmrun.agent.work import JobRun
from vmrun.agent.workshop import Workshop
from vmrun.bundle.arguments import pack_arguments
from vmrun.bundle.pack import Item, pack
from vmrun.core.errors import StoreDenied, StoreUnavailable, UsageError
from vmrun.core.ledger import JobLedger
from vmrun.core.model import Arguments, FunctionSpec, Payload
from vmrun.core.records import Final, Hold
from vmrun.core.vm_ledger import VmLedger
from vmrun.submit.publish import put_payload


def run(bench: Bench, **changes: object) -> tuple[Workshop, JobRun]:
    """The job, run by the VM's agent to its end."""
    shop = bench.shop(**changes)
    job = JobRun(shop, JOB)
    job.run()
    return shop, job


def test_a_machine_on_which_a_task_failed_stays_as_long_as_was_asked(bench: Bench, engine: type[FakeEngine]) -> None:
    engine.failing.add(3)
    bench.submit(keep_on_failure=600.0)
    bench.vm()
    shop, job = run(bench, lease=1800.0)
    assert job.to_hold
    assert holding.begin(shop, JOB, 1)
    hold = VmLedger(bench.desk(), VM).refresh().hold
    assert hold is not None
    assert (hold.job, hold.bound) == (JOB, holding.BOUND)
    assert hold.until == pytest.approx(bench.clock.now() + 600, abs=1)
    assert hold.why == f"1 task of job {JOB} failed"
    # The lease, which the dead-man timer reads, ends with it
    shop.pulse._once()
    assert int((bench.folder / "lease").read_text()) == int(hold.until + HOLD_MARGIN)
    # It takes no further job, counts as busy, and says until when
    ledger = VmLedger(bench.desk(), VM)
    assert not ledger.assign(OTHER_JOB, 0.0)
    assert ledger.fold.phase == "held"
    assert not daemon._leaves(shop, 1)
    shop.pulse._once()
    assert shop.pulse._beat.busy == f"held for debugging: 1 task of job {JOB} failed"
    assert (shop.pulse._beat.ends_at, shop.pulse._beat.ends_because) == (round(hold.until), holding.BOUND)
    # And when the time is over it takes its leave
    bench.clock.sleep(601)
    assert daemon._leaves(shop, 1)
    drain = VmLedger(bench.desk(), VM).refresh().drain
    assert drain is not None
    assert "time was over" in drain.reason


@pytest.mark.parametrize(
    ("left", "paid", "seconds", "bound"),
    [
        (86400.0, False, 3600.0, holding.BOUND),
        (900.0, False, 900.0, "maximum lifetime"),
        (86400.0, True, 240.0, "maximum cost"),
    ],
)
def test_it_never_stays_beyond_its_hard_deadline_or_its_money(
    bench: Bench,
    engine: type[FakeEngine],
    monkeypatch: pytest.MonkeyPatch,
    left: float,
    paid: bool,
    seconds: float,
    bound: str,
) -> None:
    engine.failing.add(0)
    bench.submit(keep_on_failure=3600.0)
    bench.vm()
    start = bench.clock.now()
    shop, _ = run(bench, hard_deadline=start + left)
    if paid:
        monkeypatch.setattr("vmrun.agent.pulse.stop_at", lambda fold: start + seconds)
    assert holding.begin(shop, JOB, 1)
    hold = VmLedger(bench.desk(), VM).refresh().hold
    assert hold is not None
    assert hold.bound == bound
    assert hold.until - start == pytest.approx(seconds, abs=30)
    assert hold.until <= start + left


@pytest.mark.parametrize(
    ("failing", "asked", "final"),
    [
        (set(), 600.0, None),
        ({1}, 0.0, None),
        ({1}, 600.0, Final("failed", 0, 0, "its money is spent", code="budget")),
        ({1}, 600.0, Final("cancelled", 0, 0)),
        ({1}, 600.0, Final("failed", 0, 1, "another VM said so")),
    ],
    ids=["done", "not asked", "money spent", "cancelled", "failed elsewhere"],
)
def test_no_machine_stays_that_nobody_would_look_at(
    bench: Bench, engine: type[FakeEngine], failing: set[int], asked: float, final: Final | None
) -> None:
    engine.failing |= failing
    bench.submit(keep_on_failure=asked)
    bench.vm()
    if final is not None:
        assert JobLedger(bench.desk(), JOB).finish(final)
    _, job = run(bench)
    assert not job.to_hold
    assert not (bench.folder / VM / JOB / "code").exists()


def test_a_job_that_cannot_begin_is_held_too(bench: Bench, engine: type[FakeEngine]) -> None:
    lock = put_payload(bench.memory, b"")
    bench.submit(keep_on_failure=600.0, environment=lock)
    bench.vm()
    shop, job = run(bench)
    assert job.to_hold
    assert holding.begin(shop, JOB, 1)
    hold = VmLedger(bench.desk(), VM).refresh().hold
    assert hold is not None
    assert hold.why.startswith(f"job {JOB} failed: the job needs Python 3.11")
    text = (bench.folder / VM / JOB / way_in.WELCOME).read_text()
    assert "the job needs Python" in text
    assert f"vmrun release {VM}" in text


def test_a_job_that_came_in_meanwhile_goes_first(bench: Bench, engine: type[FakeEngine]) -> None:
    engine.failing.add(0)
    bench.submit(keep_on_failure=600.0)
    bench.vm()
    shop, job = run(bench)
    assert job.to_hold
    assert VmLedger(bench.desk(), VM).assign(OTHER_JOB, 60.0)
    assert not holding.begin(shop, JOB, 1)
    assert VmLedger(bench.desk(), VM).refresh().hold is None
    assert not (bench.folder / VM / JOB).exists()
    assert holding.held_job(str(bench.folder / VM)) == ""


def test_an_agent_that_starts_again_leaves_the_files_and_holds_on(bench: Bench, engine: type[FakeEngine]) -> None:
    engine.failing.add(0)
    bench.submit(keep_on_failure=600.0)
    bench.vm()
    shop, _ = run(bench)
    assert holding.begin(shop, JOB, 1)
    daemon._clean(shop.config, bench.clock)
    assert read_way_in(shop.config.work_dir, JOB).env["VMRUN_JOB"] == JOB
    again = bench.shop()
    assert again.pulse.jobs() == [JOB]
    assert again.pulse.held() is not None
    assert not daemon._leaves(again, 1)
    assert again.pulse._beat.busy.startswith("held")
    # Without a hold it removes what is there
    (bench.folder / VM / "held").write_text("../..")
    daemon._clean(shop.config, bench.clock)
    assert os.listdir(bench.folder / VM) == []


def test_a_vm_holds_itself_and_no_other(bench: Bench) -> None:
    bench.vm()
    other = "01hzzzzzzzzzzzzzzzzzzzzzz9"
    with pytest.raises(StoreDenied):
        VmLedger(bench.desk(f"vm:{other}"), VM).hold(Hold(JOB, 1e12, "mine"), jobs=1)
    assert VmLedger(bench.desk(), VM).refresh().hold is None
    assert VmLedger(bench.desk(f"vm:{VM}"), VM).hold(Hold(JOB, 1e12, "mine"), jobs=1)
    # The first one counts: nobody makes it longer
    assert VmLedger(bench.desk(), VM).hold(Hold(JOB, 1e13, "longer"), jobs=1)
    hold = VmLedger(bench.desk(), VM).refresh().hold
    assert hold is not None
    assert hold.until == 1e12


def test_a_store_that_does_not_answer_when_a_job_failed_delays_the_hold_and_does_not_cancel_it(
    bench: Bench, engine: type[FakeEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.failing.add(3)
    bench.submit(keep_on_failure=600.0)
    bench.vm()
    begin, refused = holding.begin, [StoreUnavailable("no answer")]

    def begun(*known: Any) -> bool:
        if refused:
            raise refused.pop()
        return begin(*known)

    monkeypatch.setattr(holding, "begin", begun)
    daemon._serve(bench.shop())
    fold = VmLedger(bench.desk(), VM).refresh()
    assert fold.hold is not None
    assert fold.drain is not None
    assert "time was over" in fold.drain.reason


# --- jobs of several VMs ---


def run_on_both(bench: Bench) -> dict[str, tuple[Workshop, JobRun]]:
    """The job, run by two agents in turn, each until it waits for something."""
    slept, runs = bench.clock.sleep, {}

    def sleep(seconds: float) -> None:
        slept(seconds)
        if (parent := getcurrent().parent) is not None:
            parent.switch()

    bench.clock.sleep = sleep  # type: ignore[method-assign]
    for vm in (VM, OTHER_VM):
        bench.vm(vm)
        shop = bench.shop(vm)
        runs[vm] = shop, JobRun(shop, JOB)
    threads = [greenlet(job.run) for _, job in runs.values()]
    while going := [thread for thread in threads if not thread.dead]:
        for thread in going:
            thread.switch()
    return runs


def holds(bench: Bench, vm: str) -> bool:
    return VmLedger(bench.desk(), vm).refresh().hold is not None


@pytest.mark.parametrize("first", [VM, OTHER_VM])
def test_of_several_vms_on_which_tasks_failed_one_stays(bench: Bench, engine: type[FakeEngine], first: str) -> None:
    """It has the failed tasks of all; the others would cost as much and show nothing more."""
    engine.failing.update(range(12))
    bench.submit(vms=2, keep_on_failure=600.0)
    runs = run_on_both(bench)
    assert [job.to_hold for _, job in runs.values()] == [True, True], "tasks failed on both"
    for vm in sorted(runs, key=lambda vm: vm != first):
        assert holding.begin(runs[vm][0], JOB, 1) is (vm == VM)
    assert (holds(bench, VM), holds(bench, OTHER_VM)) == (True, False)
    assert not (bench.folder / OTHER_VM / JOB).exists()
    assert len(os.listdir(bench.folder / VM / JOB / "failed")) == 12


def test_one_that_has_ended_leaves_the_hold_to_the_next(bench: Bench, engine: type[FakeEngine]) -> None:
    engine.failing.update(range(12))
    bench.submit(vms=2, keep_on_failure=600.0)
    runs = run_on_both(bench)
    assert VmLedger(bench.desk(), VM).delete("asked for", "client")
    assert holding.begin(runs[OTHER_VM][0], JOB, 1)


def test_of_several_vms_that_cannot_begin_the_job_one_stays(
    bench: Bench, engine: type[FakeEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        bench.clock.sleep(1.0)
        raise UsageError("no such package")

    monkeypatch.setattr("vmrun.agent.work.prepare", refuse)
    bench.submit(vms=2, keep_on_failure=600.0)
    runs = run_on_both(bench)
    assert sorted(job.to_hold for _, job in runs.values()) == [False, True]


# --- what lies there ---

SOURCE = """
import os
import vmrun

@vmrun.job(over=range(4))
def f(x):
    if os.environ.get("MENDED"):
        return x * 10
    print("looking at", x)
    raise ValueError(f"no {x}")
"""


def test_a_failed_task_is_run_again_with_its_argument(bench: Bench, engine: type[FakeEngine], tmp_path: Path) -> None:
    engine.failing.update({1, 2})
    code = put_payload(bench.memory, pack([Item("job.py", SOURCE.encode())]).data)
    packed = pack_arguments(range(4), tmp_path)
    data = put_payload(bench.memory, packed.path.read_bytes())
    assert data == Payload(packed.sha256, packed.size)
    arguments = Arguments(data, put_payload(bench.memory, packed.index))
    bench.submit(
        4, 4, kind="map", function=FunctionSpec("source", path="job.py", name="f"), code=code, arguments=arguments,
        python=f"{sys.version_info[0]}.{sys.version_info[1]}", keep_on_failure=600.0, env={"LEVEL": "7"},
    )  # fmt: skip
    bench.vm()
    shop, _ = run(bench, python=sys.executable, app_path=str(ROOT))
    assert holding.begin(shop, JOB, 1)
    way = read_way_in(shop.config.work_dir, JOB)
    env = way.variables("")
    assert env["LEVEL"] == "7"
    assert env["VMRUN_JOB"] == JOB
    assert way.place == str(bench.folder / VM / JOB / "code")
    assert "task 1: raised" in (Path(way.directory) / "failed" / "1" / "traceback.txt").read_text()
    assert sorted(os.listdir(Path(way.directory) / "failed")) == ["1", "2"]

    def again(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["vmrun-again", *words],
            env={**env, **more},
            cwd=way.place,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    done = again("2")
    assert done.returncode == 1
    assert done.stdout == "looking at 2\n"
    assert done.stderr.rstrip().endswith("ValueError: no 2")
    assert again("1", MENDED="1").stdout == "task 1 returned 10\n"
    refused = again("3")
    assert refused.returncode == 2
    assert "nothing is kept of a failed task 3; there are: 1, 2" in refused.stderr


def test_the_environment_of_a_job_is_active(tmp_path: Path) -> None:
    venv = tmp_path / "environments" / "e1"
    (venv / "bin").mkdir(parents=True)
    (venv / "pyvenv.cfg").touch()
    job = tmp_path / "job"
    job.mkdir()
    WayIn(str(job), str(job / "code"), str(venv / "bin" / "python"), "/app", {"PYTHONPATH": "/own"}).write(JOB)
    assert (job / way_in.WAY_IN).stat().st_mode & 0o777 == 0o600
    env = WayIn(**json.loads((job / way_in.WAY_IN).read_text())).variables("")
    assert env["PATH"].split(os.pathsep)[:2] == [str(venv / "bin"), str(job / "bin")]
    assert env["VIRTUAL_ENV"] == str(venv)
    assert env["PYTHONPATH"] == f"/own{os.pathsep}{job / 'tools'}"
    assert env["VMRUN_OUTPUT"] == str(job / "output")


def test_a_job_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not on this machine"):
        read_way_in(str(tmp_path), JOB)
    with pytest.raises(UsageError):
        read_way_in(str(tmp_path), "../../etc")
