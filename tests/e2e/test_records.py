"""What is recorded of tasks that burn, sleep, hog memory, fail and are tried again, on this machine and for real."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.journals import client_of
from tests.support.shell import Shell, processes, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

MIXED = """
    import os
    import time
    import vmrun

    BURN, SLEEP, HOG, RAISE, EXIT, LARGE, FORK, FILES = range(8)

    @vmrun.job(over=range(8), retries=1, workers=2)
    def work(task):
        if task == BURN:
            until = time.process_time() + 0.7
            while time.process_time() < until:
                pass
        elif task == SLEEP:
            time.sleep(3)
        elif task == HOG:
            hoard = bytearray(200_000_000)
            hoard[::4096] = b"x" * len(hoard[::4096])
            time.sleep(0.1)
        elif task == RAISE:
            raise ValueError("seven")
        elif task == EXIT:
            os._exit(3)
        elif task == LARGE:
            return b"z" * 3_000_000
        elif task == FORK:
            os.system("exec python3 -c 'import time\\nwhile time.process_time() < 0.5: pass'")
        elif task == FILES:
            with open(os.path.join(os.environ["VMRUN_OUTPUT"], "x"), "w") as file:
                file.write("12345")
        return task
"""
BURN, SLEEP, HOG, RAISE, EXIT, LARGE, FORK, FILES = range(8)


@pytest.fixture
def document(shell: Shell) -> Any:
    shell.write("mixed.py", MIXED)
    done = shell.run("submit", "mixed.py", exit_code=6)
    assert "workers: 2 (" in done.stderr
    assert "BLAS/OpenMP threads per task: 1\n" in done.stderr
    (job,) = shell.ask("status")["jobs"]
    return shell.ask("status", job["id"], "--tasks")


def test_each_record_tells_what_its_task_did(shell: Shell, document: Any) -> None:
    tasks = {task["task"]: task for task in document["tasks"]}
    assert sorted(tasks) == list(range(8))
    kinds = {task: record["kind"] for task, record in tasks.items() if record["kind"] != "ok"}
    assert kinds == {RAISE: "raised", EXIT: "exited"}

    assert 0.6 < tasks[BURN]["cpu_seconds"] < 1.2
    assert tasks[BURN]["seconds"] >= 0.6
    assert 3 <= tasks[SLEEP]["seconds"] < 30
    assert tasks[SLEEP]["cpu_seconds"] < 0.1
    assert tasks[HOG]["peak_bytes"] > 200_000_000
    assert all(tasks[task]["peak_bytes"] < 150_000_000 for task in (BURN, SLEEP, LARGE, FILES))
    assert 0.4 < tasks[FORK]["cpu_seconds"] < 1.5, "child processes count"

    assert (tasks[RAISE]["type"], tasks[RAISE]["message"], tasks[RAISE]["attempt"]) == ("ValueError", "seven", 1)
    assert (tasks[EXIT]["exit"], tasks[EXIT]["attempt"]) == (3, 1)
    assert tasks[EXIT]["started"] is not None
    assert tasks[EXIT]["peak_bytes"] > 1_000_000
    assert tasks[LARGE]["result_bytes"] >= 3_000_000
    assert tasks[LARGE]["upload_seconds"] > 0
    assert tasks[FILES]["file_bytes"] == 5
    # What takes a look at the whole process, or at the machine, is told of tasks that are long enough for it.
    assert 0 < tasks[SLEEP]["private_bytes"] <= tasks[SLEEP]["rss_bytes"]
    assert tasks[SLEEP]["start_bytes"] > 1_000_000
    assert {type(tasks[SLEEP][name]) for name in ("sent_bytes", "received_bytes")} == {int}
    assert tasks[EXIT]["private_bytes"] is None
    for task in tasks.values():
        assert task["queued"] <= task["claimed"] <= task["started"] <= task["ended"] <= task["committed"] + 0.1
        assert task["argument_bytes"] > 0
        assert task["worker"] in (0, 1)
        assert task["vm"]
    processes = {task["pid"] for task in tasks.values() if task["cold"]}
    assert len(processes) == sum(task["cold"] for task in tasks.values()), "one first task for each process"

    stats = document["stats"]
    assert (stats["ended"], stats["retries"], stats["workers"]) == (8, 2, 2)
    assert stats["peak_bytes"] == max(task["peak_bytes"] for task in tasks.values())
    assert 1.2 < stats["cpu_seconds"] < 4
    assert 0 < stats["utilisation"] < stats["occupancy"] <= 1.01
    assert stats["seconds"]["max"] == max(task["seconds"] for task in tasks.values())


def test_a_task_that_was_ended_for_its_time_tells_how_long_that_was(shell: Shell) -> None:
    shell.write(
        "slow.py",
        """
        import time
        import vmrun

        @vmrun.job(over=range(2), task_timeout=1.5)
        def work(task):
            time.sleep(60 * task)
        """,
    )
    shell.run("submit", "slow.py", exit_code=6)
    (job,) = shell.ask("status")["jobs"]
    (task,) = shell.ask("status", job["id"], "--state", "timeout")["tasks"]
    assert (task["task"], task["kind"], task["cpu_seconds"]) == (1, "timeout", None)
    assert 1.4 <= task["seconds"] < 30
    assert task["started"] >= task["claimed"]
    assert task["peak_bytes"] > 1_000_000


def test_records_need_the_store_and_the_keys_and_nothing_else(shell: Shell, document: Any, tmp_path: Path) -> None:
    """The VM is gone; another computer has a copy of the configuration directory and reaches the same store."""
    job = document["job"]["id"]
    until(lambda: not processes(str(shell.home)), what="the machine has ended")
    for folder in (".cache/vmrun", ".local/state/vmrun"):
        shutil.rmtree(shell.home / folder)
    moved = shell.home / "elsewhere"
    shutil.copytree(shell.home / ".config/vmrun", moved / ".config/vmrun")
    shutil.rmtree(shell.home / ".config/vmrun")
    other = Shell(moved, {"VMRUN_STORE_URL": f"file://{shell.home}/.local/share/vmrun/store"})
    assert other.ask("status", job, "--tasks")["tasks"] == document["tasks"]
    text = other.run("status", job, "--failed").stdout
    assert "8 of 8 tasks ended: 6 ok, 1 raised, 1 exited" in text
    assert "ValueError: seven" in text
    assert other.run("plot", job, "-o", "job.png").stdout == "job.png\n"
    assert (moved / "job.png").read_bytes().startswith(b"\x89PNG")
    stats = client_of(other).handle(job).stats()
    assert (stats.ended, stats.failed, len(stats.per_worker)) == (8, 2, 2)


def test_short_tasks_have_records_and_statistics_that_add_up(shell: Shell) -> None:
    shell.write(
        "short.py",
        """
        import vmrun

        @vmrun.job(over=range(20_000))
        def square(x):
            return x * x

        @square.reduce
        def total(results):
            return sum(results)
        """,
    )
    shell.run("submit", "short.py")
    (job,) = shell.ask("status")["jobs"]
    handle = client_of(shell).handle(job["id"])
    records = list(handle.tasks())
    assert sorted(record.task for record in records) == list(range(20_001))
    assert [record.task for record in records if record.reduce] == [20_000]
    assert all(record.kind == "ok" and record.cpu_seconds is not None for record in records)
    stats = handle.stats()
    assert stats.kinds == {"ok": 20_001}
    assert stats.cpu_seconds == pytest.approx(sum(record.cpu_seconds or 0.0 for record in records), rel=0.01)
    assert sum(each.tasks for each in stats.per_worker) == 20_001
    document = json.loads(shell.run("status", job["id"], "--tasks", "--limit", "3", "--json").stdout)
    slowest = sorted((record.seconds for record in records), reverse=True)[:3]
    assert [task["seconds"] for task in document["tasks"]] == pytest.approx(slowest, abs=1e-8)
