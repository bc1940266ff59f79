"""Drivers: real ones, of the pool that comes with Python. What they start is gone afterwards, whatever it does."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from tests.support import benchmarks  # noqa: F401  makes the next ones importable
from tests.support.shell import until

# isort: split
import environments
import harness
import isolation
from process import Driver, DriverFailed, Hung, Unsupported
from systems.dispatching import cpu_seconds


def test_a_driver_runs_a_workload_and_leaves_nothing() -> None:
    with Driver("executor", sys.executable) as driver:
        driver.start(2)
        assert driver.version.startswith("Python 3.")
        reply = driver.ask("run", 30, workload="noops", count=100, chunk=10)
        assert reply["tasks"] == 100
        assert 0 < reply["seconds"] < 30
        timed = driver.ask("run", 30, workload="1ms", count=10)
        assert timed["cpu_seconds"] >= 0.01
        assert timed["longest"] <= timed["seconds"]
        with driver.memory(every=0.01) as samples:
            driver.ask("run", 30, workload="50ms", count=4)
            until(lambda: samples, what="a look at its memory")
        assert max(max(sample.values(), default=0) for sample in samples) > 1_000_000
        assert len(driver.processes()) >= 3
    assert driver.processes() == []
    assert not driver.place.exists()


@pytest.mark.parametrize("system", ["bare", "pool", "vmrun-engine"])
def test_each_of_these_runs_all_tasks(system: str) -> None:
    with Driver(system, sys.executable) as driver:
        driver.start(2)
        timed = driver.ask("run", 30, workload="1ms", count=20)
        assert timed["tasks"] == 20
        assert timed["cpu_seconds"] >= 0.02
    assert driver.processes() == []


def test_the_engine_keeps_many_workers_at_work() -> None:
    with Driver("vmrun-engine", sys.executable) as driver:
        driver.start(8)
        reply = driver.ask("ask", 60, what="many_workers", **{"with": {"tasks": 32, "seconds": 0.05}})
    # Each worker has four tasks, one after the other.
    assert 0.15 <= reply["first_to_last_start"] <= reply["first_start_to_end"]
    assert reply["cpu_seconds"] > 0


def test_processor_time_is_told_finer_than_in_ticks() -> None:
    before, own = time.process_time(), cpu_seconds(os.getpid())
    assert before <= own <= time.process_time()
    # Some microseconds of work are seen
    assert cpu_seconds(os.getpid()) > own
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert cpu_seconds(child.pid) == 0.0


def test_one_that_hangs_is_told_so_and_killed_with_its_workers() -> None:
    driver = Driver("executor", sys.executable)
    driver.start(2)
    with pytest.raises(Hung, match="did not answer"):
        driver.ask("each", 1.0, case="endless", tasks=10, limit=60)
    assert len(driver.processes()) >= 3
    driver.close(ask=False)
    assert driver.processes() == []
    driver.close()


def test_what_a_task_does_to_descriptors_does_not_reach_the_replies() -> None:
    with Driver("executor", sys.executable) as driver:
        driver.start(2)
        reply = driver.ask("each", 30, case="closed", tasks=10, limit=10)
        assert len(reply["outcomes"]) == 10
        driver.close(ask=False)


def test_failures_are_told() -> None:
    with Driver("executor", sys.executable) as driver, pytest.raises(DriverFailed, match="KeyError"):
        driver.ask("run", 30, workload="nonsense", count=1)
    with Driver("nonsense", sys.executable) as driver, pytest.raises(DriverFailed, match="nonsense"):
        driver.start(2)
    with pytest.raises(DriverFailed, match="is gone"):
        driver.ask("stop", 1)
    assert issubclass(Unsupported, DriverFailed)


def test_an_environment_is_known_by_what_it_is_made_from() -> None:
    wanted = environments.requirements("ray")
    assert all("==" in one for one in wanted)
    here = environments.folder_of("ray", wanted)
    assert here == environments.folder_of("ray", wanted[::-1])
    assert here != environments.folder_of("ray", [*wanted, "more==1"])
    assert any(one.startswith("cryptography") for one in environments.requirements("vmrun"))


def test_what_cannot_be_installed_says_why(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "PLACE", tmp_path)
    monkeypatch.setitem(environments.REQUIREMENTS, "ray", (str(tmp_path / "no-such-package"),))
    with pytest.raises(environments.NotInstalled):
        environments.python_of("ray")
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_the_isolation_table_is_tried_anew(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a table of an earlier run
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(isolation, "PAGE", tmp_path / "isolation.md")
    monkeypatch.setattr(isolation, "python_of", lambda _: sys.executable)
    labels = [subject.label for subject in isolation.SUBJECTS]
    old = isolation.Verdict("from before", alone=True)
    isolation.show({"raise": dict.fromkeys(labels, old)}, dict.fromkeys(labels, "1.0"), write=False)
    # When one system is looked at again
    isolation.again(["ProcessPoolExecutor"], ["raise"])
    # Then only that one has changed, in what is kept and on the page
    table, versions = isolation.kept()
    assert table["raise"].pop("ProcessPoolExecutor").text == "failed alone"
    assert set(table["raise"].values()) == {old}
    assert versions["ProcessPoolExecutor"].startswith("Python 3.")
    assert versions["Ray"] == "1.0"
    assert "| from before | failed alone | from before |" in (tmp_path / "isolation.md").read_text(encoding="utf-8")
