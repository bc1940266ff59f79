"""Jobs on this machine, as a user runs them: scripts, commands, jobs over inputs."""

from __future__ import annotations

import pytest

from tests.support.shell import Shell, processes, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SQUARES = """
    import os
    import vmrun

    @vmrun.job(over=range(100))
    def square(x):
        return x * x

    @square.reduce
    def total(results):
        print("reducing", len(results))
        with open(os.path.join(os.environ["VMRUN_OUTPUT"], "total.txt"), "w") as file:
            file.write(str(sum(results)))
        return sum(results)
"""


def test_a_job_over_inputs_with_a_reduce_brings_its_value_and_its_file_home(shell: Shell) -> None:
    shell.write("squares.py", SQUARES)
    done = shell.run("submit", "squares.py", "-o", "out")
    assert "reducing 100" in done.stdout
    assert done.stdout.splitlines()[-1] == str(sum(x * x for x in range(100)))
    assert (shell.home / "out" / "total.txt").read_text() == str(sum(x * x for x in range(100)))
    (job,) = shell.ask("status")["jobs"]
    assert job["state"] == "done"
    assert job["tasks"] == {"total": 101, "done": 101, "failed": 0, "running": 0}
    document = shell.ask("result", job["id"])
    assert document["results"] == [x * x for x in range(100)]
    assert document["reduced"] == sum(x * x for x in range(100))
    assert shell.ask("status")["vms"] == []
    until(lambda: not processes(str(shell.home)), 30, "the machine has ended")


def test_a_script_runs_as_main_with_its_arguments_and_its_exit_code_comes_home(shell: Shell) -> None:
    shell.write("helper.py", "WORD = 'helped'\n")
    shell.write(
        "script.py",
        """
        import sys
        import helper
        print(__name__, sys.argv[1:], helper.WORD)
        print("to stderr", file=sys.stderr)
        sys.exit(int(sys.argv[1]))
        """,
    )
    good = shell.run("submit", "script.py", "--", "0", "--seed=7")
    assert good.stdout == "__main__ ['0', '--seed=7'] helped\n"
    assert "to stderr\n" in good.stderr
    bad = shell.run("submit", "script.py", "--", "3", exit_code=6)
    assert "__main__ ['3'] helped\n" in bad.stdout
    assert "3" in bad.stderr.splitlines()[-1] or "exit" in bad.stderr


def test_a_native_command_runs_and_writes_files(shell: Shell) -> None:
    done = shell.run("submit", "-o", "out", "--", "sh", "-c", 'echo hi; echo data > "$VMRUN_OUTPUT/x.txt"')
    assert done.stdout == "hi\n"
    assert (shell.home / "out" / "x.txt").read_text() == "data\n"
    failed = shell.run("submit", "--", "sh", "-c", "kill -SEGV $$", exit_code=6)
    assert "SIGSEGV" in failed.stderr


def test_a_bad_task_fails_alone_with_its_reason(shell: Shell) -> None:
    shell.write(
        "mixed.py",
        """
        import ctypes, os, sys, threading
        import vmrun

        class Odd(Exception):
            def __init__(self, one, two):
                super().__init__(f"{one} {two}")

        @vmrun.job(over=range(12))
        def task(x):
            if x == 1: raise ValueError("one is bad")
            if x == 3: sys.exit(7)
            if x == 5: os._exit(9)
            if x == 7: ctypes.string_at(0)
            if x == 8: return threading.Lock()
            if x == 9: raise Odd(1, 2)
            print("task", x)
            return x
        """,
    )
    done = shell.run("submit", "mixed.py", exit_code=6)
    assert "one is bad" in done.stderr
    (job,) = shell.ask("status")["jobs"]
    assert job["state"] == "failed"
    assert job["tasks"] == {"total": 12, "done": 6, "failed": 6, "running": 0}
    document = shell.ask("result", job["id"], exit_code=6)
    assert document["results"] == [x if x not in (1, 3, 5, 7, 8, 9) else None for x in range(12)]
    kinds = {error["task"]: error["kind"] for error in document["errors"]}
    expected = {1: "raised", 3: "exited", 5: "exited", 7: "signalled", 8: "unpicklable", 9: "raised"}
    assert kinds == expected
    first = next(error for error in document["errors"] if error["task"] == 1)
    assert first["type"] == "ValueError"
    assert 'raise ValueError("one is bad")' in first["traceback"]
    logs = shell.run("logs", job["id"], "--task", "4").stdout
    assert logs == "task 4\n"


def test_packages_that_the_script_asks_for_are_installed_for_it_alone(shell: Shell) -> None:
    shell.write(
        "needs.py",
        """
        # /// script
        # requires-python = ">=3.11"
        # dependencies = ["six==1.16.0"]
        # ///
        import six
        import vmrun

        @vmrun.job(over=[1, 2])
        def version(x):
            return f"{six.__version__} {x}"
        """,
    )
    shell.run("submit", "needs.py")
    (job,) = shell.ask("status")["jobs"]
    assert shell.ask("result", job["id"])["results"] == ["1.16.0 1", "1.16.0 2"]
    again = shell.run("submit", "needs.py", "--with", "tomli==2.0.1")
    assert again.returncode == 0


@pytest.mark.catalogue(59)
def test_a_job_over_nothing_is_done_at_once_without_a_machine(shell: Shell) -> None:
    shell.write("none.py", "import vmrun\n\n@vmrun.job(over=[])\ndef f(x):\n    return x\n")
    shell.run("submit", "none.py")
    document = shell.ask("status")
    assert document["jobs"][0]["state"] == "done"
    assert document["vms"] == []


def test_cancel_ends_a_running_job_and_its_machine(shell: Shell) -> None:
    shell.write(
        "slow.py",
        """
        import time
        import vmrun

        @vmrun.job(over=range(4))
        def f(x):
            time.sleep(600)
        """,
    )
    job = shell.submit("slow.py")
    shell.run("logs", job, exit_code=None)
    until(lambda: shell.ask("status", job)["job"]["tasks"]["running"] > 0, 30, "tasks run")
    shell.run("cancel", job)
    assert shell.wait(job)["state"] == "cancelled"
    until(lambda: not processes(str(shell.home)), 30, "the machine ends by itself")


def test_a_second_submit_of_the_same_code_uploads_nothing_again(shell: Shell) -> None:
    shell.write("squares.py", SQUARES)
    shell.run("submit", "squares.py", "-o", "out")
    store = shell.home / ".local" / "share" / "vmrun" / "store" / "payloads"
    before = {path.name: path.stat().st_ino for path in store.iterdir()}
    shell.run("submit", "squares.py", "-o", "out")
    after = {path.name: path.stat().st_ino for path in store.iterdir()}
    assert before == after


def test_the_idempotency_key_gives_the_same_job(shell: Shell) -> None:
    shell.write("squares.py", SQUARES)
    first = shell.submit("--idempotency-key", "k", "squares.py")
    second = shell.submit("--idempotency-key", "k", "squares.py")
    assert first == second
    assert shell.wait(first)["state"] == "done"
