"""What a person may get wrong: one clear message, the right exit code, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.store.conftest import KEY_ID, SECRET_KEY, rclone  # noqa: F401 - a fixture
from tests.support.shell import VMRUN, Shell, processes, until
from tests.support.source import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

GOOD = "import vmrun\n\n@vmrun.job(over=[1])\ndef f(x):\n    return x\n"
TWO = GOOD + "\n@vmrun.job(over=[2])\ndef g(x):\n    return x\n\ndef plain(x):\n    return x\n"
LOCK = "import threading\nimport vmrun\n\n@vmrun.job(over=[1, 2, {'a': [threading.Lock()]}])\ndef f(x):\n    return x\n"


def header(*lines: str) -> str:
    return "\n".join(["# /// script", "# [tool.vmrun]", *(f"# {line}" for line in lines), "# ///", GOOD])


def decorated(options: str) -> str:
    return GOOD.replace("over=[1]", f"over=[1], {options}")


@dataclass(frozen=True)
class Bad:
    """One mistake, and what is to be said about it."""

    #: The command line after `vmrun`.
    argv: tuple[str, ...]
    #: What the message says, in this order.
    says: tuple[str, ...]
    #: What the hint says.
    hint: str = ""
    exit_code: int = 2
    code: str = "usage"
    files: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


def job(text: str, *says: str, **more: Any) -> Bad:
    """A job file with a mistake in it."""
    return Bad(("submit", "job.py"), says, files={"job.py": text}, **more)


def option(*words: str, says: tuple[str, ...], **more: Any) -> Bad:
    """A good job file and an option that is none."""
    return Bad(("submit", "job.py", *words), says, files={"job.py": GOOD}, **more)


def config(text: str, *says: str, **more: Any) -> Bad:
    """A configuration file with a mistake in it."""
    files = {"vmrun.toml": text, "job.py": GOOD}
    return Bad(("submit", "job.py"), ("vmrun.toml", *says), files=files, code="config", **more)


MISTAKES = {
    # --- what to run ---
    "missing file": Bad(("submit", "nojob.py"), ("there is no file nojob.py",)),
    "a misspelt file": Bad(("submit", "jbo.py"), ("no file jbo.py",), "did you mean job.py", files={"job.py": GOOD}),
    "a directory": Bad(("submit", "folder.py"), ("folder.py is a directory",), files={"folder.py/x": ""}),
    "the directory itself": Bad(("submit", "."), ("'.' is not a Python file",), "vmrun submit --"),
    "nothing": Bad(("submit",), ("nothing to run",), "vmrun submit job.py"),
    "a syntax error": job(
        "import vmrun\n\n@vmrun.job(over=[1]\ndef f(x):\n    pass\n", "job.py, line 3", "never closed"
    ),
    "not utf-8": job("# coding: latin-1 \udce4\n" + GOOD, "job.py"),
    "a script with a syntax error": job("print(1)\nprint 2\n", "job.py, line 2"),
    "two jobs and no name": job(TWO, "job.py has 2 jobs: f, g", hint="job.py::f"),
    "an unknown name": Bad(("submit", "job.py::h"), ("job.py has no job h",), "its jobs: f", files={"job.py": TWO}),
    "a function that is no job": Bad(
        ("submit", "job.py::plain"), ("plain is not a job",), "@vmrun.job", files={"job.py": TWO}
    ),
    "arguments for a job over inputs": option("--", "7", says=("takes no arguments: 7",)),
    "an import that is not there": job(
        "import no_such_module\n" + GOOD, "job.py cannot be imported", "no_such_module", hint="--with no_such_module"
    ),
    "an import under another name": job("import yaml_nope, sklearn\n" + GOOD, "yaml_nope"),
    "a file that raises": job("1 / 0\n" + GOOD, "job.py cannot be imported: ZeroDivisionError"),
    "a file that exits": job("import sys; sys.exit(3)\n" + GOOD, "called exit(3)", hint="__main__"),
    "a file that kills itself": job("import os; os.kill(os.getpid(), 9)\n" + GOOD, "killed by SIGKILL"),
    "inputs that raise": job(
        "import vmrun\n\ndef inputs():\n    yield 1\n    raise OSError('no more')\n\n"
        "@vmrun.job(over=inputs())\ndef f(x):\n    pass\n",
        "the inputs (`over`) of job f raised OSError: no more",
    ),
    "an argument that cannot be pickled": job(LOCK, "argument 2", "argument 2['a'][0] is a _thread.lock"),
    # --- sizes and durations ---
    "a size as an option": option("--memory", "12XB", says=("--memory: '12XB' is not a size",), hint="16GB"),
    "a negative size": option("--disk", "-1GB", says=("--disk", "'-1GB'")),
    "a size in the header": job(header('memory = "12XB"'), "job.py", "tool.vmrun.memory: '12XB' is not a size"),
    "a size in the decorator": job(decorated("memory='12XB'"), "job.py, line 3", "memory: '12XB' is not a size"),
    "a size in the configuration": config('[defaults]\nmemory = "12XB"\n', "line 2", "defaults.memory", "12XB"),
    "a duration as an option": option("--task-timeout", "5 fortnights", says=("--task-timeout", "5 fortnights")),
    "a duration in the header": job(header('max_lifetime = "soon"'), "job.py", "tool.vmrun.max_lifetime: 'soon'"),
    "a duration in the decorator": job(decorated("task_timeout='soon'"), "job.py, line 3", "task_timeout: 'soon'"),
    "a duration in the configuration": config('[local]\nlease = "soon"\n', "line 2", "local.lease", "'soon'"),
    "a duration in the environment": Bad(
        ("status",), ("VMRUN_VM_LEASE", "'soon'"), code="config", environment={"VMRUN_VM_LEASE": "soon"}
    ),
    "a task that is larger than this computer": option(
        "--task-memory", "500TB", says=("not one task fits", "500 TB"), hint="lower --task-memory"
    ),
    "a task that is larger than this computer, in the decorator": job(
        decorated("task_memory='500TB'"), "not one task fits", "500 TB", hint="lower --task-memory"
    ),
    # --- names of things ---
    "an unknown key": config("[defaults]\ncpuz = 3\n", "line 2: unknown key defaults.cpuz", hint="defaults.cpus"),
    "an unknown table": config("[default]\ncpus = 3\n", "line 1: unknown table default", hint="defaults"),
    "no toml": config("[defaults\n", "line 1"),
    "an unknown option in the header": job(header("memry = 1"), "tool.vmrun.memry", hint="did you mean memory"),
    "an unknown option in the decorator": job(decorated("memry='1GB'"), "memry", hint="memory"),
    "an unknown variable": Bad(
        ("status",), ("VMRUN_STOER",), "VMRUN_STORE", code="config", environment={"VMRUN_STOER": "/x"}
    ),
    "an unknown place": option("--on", "mars", says=("no provisioner named 'mars'",), hint="local"),
    "an unknown verb": Bad(("sumbit", "job.py"), ("no verb 'sumbit'",), "submit"),
    "an unknown option": option("--cpu", "3", says=("--cpu",)),
    "an unknown job": Bad(("result", "no-such-job"), ("no job 'no-such-job'",), "vmrun status"),
    "a job's name that climbs": Bad(("result", "../../x"), ("no job '../../x'",)),
    "a name of two lines": option("--name", "a\nb", says=("--name", "line break")),
    "a name that is too long": option("--name", "x" * 10240, says=("--name", "10240 characters")),
    "a name with an escape": option("--name", "a\x1b[31mb", says=("--name", "control character")),
    "no workers": option("--workers", "0", says=("--workers",)),
    "half a retry": option("--retries", "0.5", says=("--retries", "integer")),
    "a variable without a value": option("--env", "NAME", says=("--env", "'NAME'")),
    "a python of another world": option("--python", "9.9", says=("9.9",)),
    # --- machines ---
    "more cpus than there are": option(
        "--cpus", "100000", says=("nothing on local fits 100000 CPUs",), exit_code=4, code="capacity", hint="--on"
    ),
    "more memory than there is": job(
        header('memory = "1PB"'), "nothing on local fits", exit_code=4, code="capacity", hint="ask for less"
    ),
    "no docker engine": option(
        "--on",
        "docker",
        says=("no Docker Engine answers",),
        hint="--on local",
        exit_code=2,
        code="usage",
        environment={"DOCKER_HOST": "unix:///nonexistent/docker.sock"},
    ),
    "a home that cannot be written to": Bad(
        ("submit", "job.py"),
        ("the cache directory /proc/.cache/vmrun cannot be used",),
        "VMRUN_CACHE_DIR",
        code="config",
        files={"job.py": GOOD},
        environment={"HOME": "/proc"},
    ),
    # --- stores ---
    "a store below a file": option(
        says=("cannot use the store", "Not a directory"),
        hint="store.url",
        exit_code=3,
        code="store-denied",
        environment={"VMRUN_STORE": "job.py/store"},
    ),
    "a store where nothing can be": option(
        says=("cannot use the store /proc/vmrun/store",),
        exit_code=3,
        code="store-denied",
        environment={"VMRUN_STORE": "file:///proc/vmrun/store"},
    ),
    "a store of an unknown kind": option(
        says=("ftp://host/x",), hint="s3://", code="config", environment={"VMRUN_STORE": "ftp://host/x"}
    ),
    "a store with its password": option(
        says=("carries credentials",),
        hint="store.access_key_id",
        code="config",
        environment={"VMRUN_STORE": "s3://user:canary@bucket/x"},
    ),
}


def prepare(shell: Shell, bad: Bad) -> Shell:
    for name, text in bad.files.items():
        path = shell.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8", errors="surrogateescape")
    return Shell(shell.home, bad.environment)


def assert_one_message(said: str, *words: str, hint: str = "") -> None:
    """One error with its hint, and nothing that belongs into a crash report."""
    assert len(re.findall(r"^error: ", said, re.MULTILINE)) == 1, said
    message, found, hints = said.partition("\nhint: ")
    assert found, said
    message = message[message.index("error: ") :]
    at = 0
    for word in words:
        at = message.find(word, at)
        assert at >= 0, f"{word!r} is not in, or too early in:\n{said}"
    assert hint in hints, said
    assert "unexpected" not in said
    assert "event=" not in said
    # The user's own traceback may stand there, vmrun's may not.
    assert f'File "{ROOT}/vmrun' not in said


def assert_nothing_left(shell: Shell) -> None:
    """No machine, no process, no job."""
    home = shell.home
    machines = home / ".local" / "state" / "vmrun" / "local" / "machines"
    assert not machines.exists() or not any(machines.iterdir())
    assert not processes(str(home))
    index = home / ".local" / "share" / "vmrun" / "store" / "index"
    assert not index.exists() or not [path for path in index.rglob("*") if path.is_file()]
    assert not list(home.rglob("crash-*"))


@pytest.mark.parametrize("bad", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_in_one_message_and_leaves_nothing(shell: Shell, bad: Bad) -> None:
    done = prepare(shell, bad).run(*bad.argv, exit_code=bad.exit_code)
    assert done.stdout == ""
    assert_one_message(done.stderr, *bad.says, hint=bad.hint)
    assert_nothing_left(shell)


@pytest.mark.parametrize(
    "name",
    [
        "missing file",
        "a syntax error",
        "an argument that cannot be pickled",
        "an unknown key",
        "an unknown option",
        "more cpus than there are",
        "a store below a file",
        "a home that cannot be written to",
    ],
)
def test_with_json_a_mistake_is_one_document(shell: Shell, name: str) -> None:
    bad = MISTAKES[name]
    done = prepare(shell, bad).run(*bad.argv, "--json", exit_code=bad.exit_code)
    (line,) = done.stdout.splitlines()
    document = json.loads(line)
    assert (document["schema"], document["ok"]) == (1, False)
    assert set(document["error"]) == {"code", "message", "hint", "retryable"}
    assert document["error"]["code"] == bad.code
    assert all(word in document["error"]["message"] for word in bad.says)
    assert bad.hint in document["error"]["hint"]
    assert document["error"]["retryable"] is (bad.code == "capacity")
    assert "error:" not in done.stderr


# --- names that are odd, and allowed ---


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "🚀 naïve", "a" * 200, "'; rm -rf ~ #"])
def test_a_job_may_have_an_odd_name(shell: Shell, name: str) -> None:
    shell.write("none.py", "import vmrun\n\n@vmrun.job(over=[])\ndef f(x):\n    return x\n")
    shell.run("submit", "none.py", f"--name={name}")
    (job,) = shell.ask("status")["jobs"]
    assert (job["name"], job["state"]) == (name, "done")
    assert shell.ask("result", name)["job"]["id"] == job["id"]
    store = shell.home / ".local" / "share" / "vmrun" / "store"
    # The name is data: it is part of no path.
    assert {path.name for path in (store / "jobs").iterdir()} == {job["id"]}
    assert {path.name for path in shell.home.iterdir()} <= {".cache", ".config", ".local", "none.py"}


def test_a_job_over_nothing_is_done_at_once_and_never_has_a_machine(shell: Shell) -> None:
    shell.write("none.py", "import vmrun\n\n@vmrun.job(over=[])\ndef f(x):\n    return x\n")
    document = shell.ask("submit", "none.py", "--cpus", "100000")["job"]
    assert (document["state"], document["vms"]) == ("done", [])
    assert document["tasks"]["total"] == 0
    assert shell.ask("result", document["id"])["results"] == []
    assert not (shell.home / ".local" / "state" / "vmrun" / "local").exists()


# --- results and exceptions that do not travel ---


def test_what_cannot_be_opened_at_home_fails_alone(shell: Shell) -> None:
    shell.write(
        "odd.py",
        """
        import os, threading
        import vmrun

        class Fragile:
            def __getstate__(self): return 1
            def __setstate__(self, state): raise RuntimeError("not here")

        class Exiting(Fragile):
            def __setstate__(self, state): raise SystemExit(9)

        class TwoArguments(Exception):
            def __init__(self, one, two): super().__init__(f"{one} and {two}")

        class OnlyThere(Exception):
            def __setstate__(self, state):
                if "VMRUN_JOB" not in os.environ: raise SystemExit(9)

        @vmrun.job(over=range(7))
        def f(x):
            if x == 1: return {"deep": [threading.Lock()]}
            if x == 2: return Fragile()
            if x == 3: return Exiting()
            if x == 4: raise TwoArguments("one", "two")
            if x == 5:
                error = OnlyThere("away")
                error.state = 1
                raise error
            return x
        """,
    )
    done = shell.run("submit", "odd.py", exit_code=6)
    assert_one_message(done.stderr, "5 of 7 tasks failed")
    assert "here it raises RuntimeError: not here" in done.stderr
    (job,) = shell.ask("status")["jobs"]
    document = shell.ask("result", job["id"], exit_code=6)
    assert document["results"] == [0, None, None, None, None, None, 6]
    errors = {error["task"]: (error["kind"], error["type"], error["message"]) for error in document["errors"]}
    assert {task: kind for task, (kind, _, _) in errors.items()} == {
        1: "unpicklable",
        2: "unpicklable",
        3: "unpicklable",
        4: "raised",
        5: "raised",
    }
    assert "result['deep'][0] is a _thread.lock" in errors[1][2]
    assert errors[3][1:] == ("SystemExit", "here it raises SystemExit: 9")
    assert errors[4][2] == "one and two"
    assert errors[5][2] == "away"
    # Saving all of them to one file is refused, and says which one it is about.
    refused = shell.run("result", job["id"], "-o", "values.pkl", exit_code=6)
    assert_one_message(refused.stderr, "the result of task 2 cannot be opened here: RuntimeError: not here")
    assert not (shell.home / "values.pkl").exists()


# --- stores that cannot be used ---


def test_a_store_that_is_read_only_is_refused(shell: Shell) -> None:
    store = shell.home / "store"
    store.mkdir()
    shell.write("job.py", GOOD)
    command = [VMRUN, "submit", "job.py"]
    if os.geteuid() == 0:
        # No mode keeps root out, a mount does.
        script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", script, str(store), *command]
    else:
        store.chmod(0o500)
    done = subprocess.run(
        command,
        cwd=shell.home,
        env={**shell.env, "VMRUN_STORE": str(store)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mounts here: {done.stderr.strip()}")
    assert done.returncode == 3, done.stderr
    assert_one_message(done.stderr, f"the store {store}", hint="store.url")
    assert_nothing_left(shell)
    assert list(store.iterdir()) == []


def test_a_store_that_ignores_create_only_writes_is_refused(
    shell: Shell,
    rclone: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    shell.write("job.py", GOOD)
    told = {
        "VMRUN_STORE": "s3://bucket/deployment",
        "VMRUN_STORE_ENDPOINT": rclone,
        "VMRUN_STORE_REGION": "us-east-1",
        "VMRUN_STORE_ACCESS_KEY_ID": KEY_ID,
        "VMRUN_STORE_SECRET_ACCESS_KEY": SECRET_KEY,
    }
    done = Shell(shell.home, told).run("submit", "job.py", "--json", exit_code=3)
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "store-unsafe"
    assert "create-only" in error["message"]
    assert "store.url" in error["hint"]
    assert SECRET_KEY not in done.stdout + done.stderr
    # Not even the job's files were uploaded.
    assert [path for path in (tmp_path / "served").rglob("*") if path.is_file()] == []
    assert_nothing_left(shell)


@pytest.fixture(scope="module")
def unreachable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[str], Path, float]]:
    """A submit to a store that is not there. It runs beside the other tests, because it has some patience."""
    home = tmp_path_factory.mktemp("home")
    told = {
        "VMRUN_STORE": "s3://bucket/deployment",
        "VMRUN_STORE_ENDPOINT": "http://127.0.0.1:1",
        "VMRUN_STORE_REGION": "us-east-1",
        "VMRUN_STORE_ACCESS_KEY_ID": "key",
        "VMRUN_STORE_SECRET_ACCESS_KEY": "canary",
    }
    shell = Shell(home, told)
    shell.write("job.py", GOOD)
    process = shell.start("submit", "job.py")
    yield process, home, time.monotonic()
    process.kill()
    process.communicate()


@pytest.fixture(autouse=True)
def early(unreachable: object) -> None:
    """Have it begin with the first test."""


# --- leaving ---


IMPORTING = """
    import pathlib, time
    import vmrun

    pathlib.Path({flag!r}).touch()
    time.sleep({seconds})

    @vmrun.job(over=range(3))
    def f(x):
        # It is not to be done before it was interrupted
        while not pathlib.Path({flag!r} + ".go").exists():
            time.sleep(0.02)
        return x
"""


def interrupted(client: subprocess.Popen[str]) -> str:
    client.send_signal(signal.SIGINT)
    out, said = client.communicate(timeout=240)
    assert client.returncode == 130, said
    assert out == ""
    assert "Traceback" not in said
    return said


def test_ctrl_c_before_the_submission_leaves_nothing(shell: Shell) -> None:
    flag = shell.home / "flag"
    shell.write("job.py", IMPORTING.format(flag=str(flag), seconds=600))
    client = shell.start("submit", "job.py")
    until(flag.exists, 60, "the file is imported")
    assert_one_message(interrupted(client), "interrupted before the job was submitted", hint="nothing runs")
    until(lambda: not processes(str(shell.home)), 20, "the process that imports is gone")
    assert_nothing_left(shell)


@pytest.mark.parametrize("moment", ["index/jobs", "index/vms", "machines"])
def test_ctrl_c_after_the_submission_leaves_a_job_that_goes_on(shell: Shell, moment: str) -> None:
    shell.write("job.py", IMPORTING.format(flag=str(shell.home / "flag"), seconds=0))
    shell.run("status")
    places = {
        "machines": shell.home / ".local" / "state" / "vmrun" / "local" / "machines",
        **{name: shell.home / ".local" / "share" / "vmrun" / "store" / name for name in ("index/jobs", "index/vms")},
    }
    place = places[moment]
    client = shell.start("submit", "job.py")
    while not (place.is_dir() and any(place.iterdir())):
        assert client.poll() is None
        time.sleep(0.001)  # noqa: TID251 - to be there in time
    said = interrupted(client)
    (shell.home / "flag.go").touch()
    jobs = shell.ask("status")["jobs"]
    if "nothing runs" in said:
        # Only the very first sign of a job was there.
        assert (moment, jobs) == ("index/jobs", [])
        return
    (job,) = jobs
    for verb in ("wait", "logs -f", "result", "cancel"):
        assert f"vmrun {verb} {job['id']}" in said
    assert shell.wait(job["id"])["state"] == "done"
    assert shell.ask("result", job["id"])["results"] == [0, 1, 2]
    until(lambda: not processes(str(shell.home)), 30, "the machine ends by itself")


def test_files_named_like_modules_do_not_get_in_the_way(shell: Shell) -> None:
    for name in ("logging", "json", "random", "selectors", "vmrun"):
        shell.write(f"{name}.py", "raise SystemExit('imported by mistake')\n")
    # The job's own process has its folder first on its path, as `python job.py` has; a script need not import these.
    job = shell.run("submit", "--detach", "--", "echo", "hello").stdout.strip()
    assert shell.wait(job)["state"] == "done"
    assert shell.run("logs", job).stdout == "hello\n"
    (log,) = (shell.home / ".cache" / "vmrun" / "background").iterdir()
    assert "imported by mistake" not in log.read_text()


def test_a_job_that_gets_no_machine_says_how_to_go_on(shell: Shell) -> None:
    shell.write("job.py", GOOD)
    state = shell.home / ".local" / "state" / "vmrun"
    state.mkdir(parents=True)
    (state / "local").write_text("in the way")
    done = shell.run("submit", "job.py", exit_code=4)
    (job,) = shell.ask("status")["jobs"]
    assert job["state"] == "pending"
    assert_one_message(done.stderr, "no machine was to be had", hint=f"`vmrun wait {job['id']}` tries again")
    assert f"`vmrun cancel {job['id']}` gives it up" in done.stderr
    (state / "local").unlink()
    shell.run("_bring-up", job["id"])
    assert shell.wait(job["id"])["state"] == "done"
    assert shell.ask("result", job["id"])["results"] == [1]


def test_an_empty_home_is_good_enough(shell: Shell, tmp_path: Path) -> None:
    shell.write("none.py", "import vmrun\n\n@vmrun.job(over=[])\ndef f(x):\n    return x\n")
    told = {f"VMRUN_{name}_DIR": str(tmp_path / name) for name in ("CACHE", "CONFIG", "STATE")}
    bare = {"PATH": os.environ["PATH"], "VMRUN_STORE": str(tmp_path / "store"), **told}
    done = subprocess.run(
        [sys.executable, "-m", "vmrun", "submit", "none.py"],
        cwd=shell.home,
        env=bare,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "store" / "deployment.json").is_file()


# --- the end of what `unreachable` began ---


def test_a_store_that_is_not_there_is_told_in_bounded_time(
    unreachable: tuple[subprocess.Popen[str], Path, float],
) -> None:
    process, home, begun = unreachable
    out, said = process.communicate(timeout=max(1.0, begun + 120 - time.monotonic()))
    assert (process.returncode, out) == (3, "")
    assert_one_message(said, "s3://bucket", "http://127.0.0.1:1", "connection refused", hint="store.endpoint")
    assert "canary" not in said
    assert not (home / ".local" / "state" / "vmrun" / "local").exists()
    assert not processes(str(home))
