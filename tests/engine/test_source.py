"""Jobs as files and as programs: how they are imported and run, and what they find."""

from __future__ import annotations

import os
import pickle
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from tests.engine.bench import APP, Bench, block
from tests.engine.conftest import MakeBench
from vmrun.agent.engine import FunctionDefinition
from vmrun.core.blocks import Status, TaskBlock, lengths_of

JOB = """
import os, sys
from dataclasses import dataclass
import vmrun
import shapes

@dataclass
class Point:
    x: int

def square(x):
    return Point(x * x), shapes.Shape(x), os.getcwd(), __name__

class Job:
    def __init__(self, fn, reducer):
        self.fn, self.reducer = fn, reducer

def total(points):
    assert all(isinstance(point, Point) for point, *_ in points), "another worker's Point is not this one's"
    return sum(point.x for point, *_ in points), len({shape for _, shape, *_ in points})

job = Job(square, total)

if __name__ == "__main__":
    raise SystemExit("this was run as a program")
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    code = tmp_path / "code"
    code.mkdir()
    (code / "job.py").write_text(JOB)
    (code / "shapes.py").write_text(
        "from dataclasses import dataclass\n\n@dataclass(frozen=True)\nclass Shape:\n    corners: int\n"
    )
    return code


def test_a_function_in_a_file(make_bench: MakeBench, code: Path) -> None:
    """Its results can be opened where neither the file nor what it imports exists."""
    bench = make_bench(code_path=str(code))
    bench.source(code / "job.py", "job")
    bench.feed(range(20), "job")
    bench.finish()
    assert set(bench.statuses.values()) == {Status.ok}
    for number in range(20):
        point, shape, directory, name = bench.outcomes[number]
        assert (point.x, shape.corners) == (number * number, number)
        assert directory == str(code)
        assert name == "__vmrun_job__"
    assert "shapes" not in sys.modules
    assert "__vmrun_job__" not in sys.modules


def test_a_reduce_knows_the_classes_of_all_workers(make_bench: MakeBench, code: Path, tmp_path: Path) -> None:
    bench = make_bench(code_path=str(code), workers=3)
    bench.source(code / "job.py", "job")
    bench.feed(range(30), "job")
    bench.finish()
    blocks = sorted((event.block for event in bench.events if hasattr(event, "block")), key=lambda found: found.first)
    data = b"".join(len(text).to_bytes(8, "little") + text for text in (found.encode() for found in blocks))
    (tmp_path / "results").write_bytes(data)
    definition = FunctionDefinition("source", role="reduce", path=str(code / "job.py"), name="job")
    bench.engine.define("reduce", definition)
    path = str(tmp_path / "results").encode()
    bench.engine.feed(TaskBlock(30, lengths_of([path]), path, "results"), "reduce")
    bench.finish()
    assert bench.outcomes[30] == (sum(n * n for n in range(30)), 30)


def test_processes_that_a_job_starts_find_its_functions(make_bench: MakeBench, code: Path) -> None:
    (code / "spawning.py").write_text(
        "import multiprocessing\n"
        "def double(x):\n    return 2 * x\n"
        "def f(x):\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        return pool.map(double, [x])\n"
    )
    bench = make_bench(code_path=str(code))
    bench.source(code / "spawning.py", "f")
    bench.feed([4])
    bench.finish()
    assert bench.outcomes[0] == [8]


def test_a_file_that_cannot_be_imported_says_where(make_bench: MakeBench, code: Path) -> None:
    (code / "bad.py").write_text("import json\nimport not_there\n")
    bench = make_bench(code_path=str(code))
    bench.source(code / "bad.py", "f")
    bench.feed([1, 2])
    bench.finish()
    for said in bench.outcomes.values():
        assert (said["kind"], said["type"]) == ("raised", "ModuleNotFoundError")
        assert f'File "{code}/bad.py", line 2' in said["traceback"]
        assert "vmrun/agent" not in said["traceback"]
        assert "importlib" not in said["traceback"]


def test_a_missing_file_and_a_missing_name(make_bench: MakeBench, code: Path) -> None:
    bench = make_bench(code_path=str(code))
    bench.source(code / "gone.py", "f")
    bench.source(code / "job.py", "nobody")
    bench.feed([1], "f")
    bench.feed([1], "nobody", first=1)
    bench.finish()
    assert bench.outcomes[0]["type"] == "FileNotFoundError"
    assert "nobody" in bench.outcomes[1]["message"]


def other_pythons() -> list[str]:
    """Interpreters of other minor versions that run here."""
    found = []
    for minor in range(11, 16):
        if minor == sys.version_info.minor:
            continue
        homes = sorted(Path(pwd.getpwuid(os.getuid()).pw_dir).glob(f".pyenv/versions/3.{minor}.*/bin/python"))
        path = str(homes[-1]) if homes else shutil.which(f"python3.{minor}")
        if path and subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:
            found.append(path)
    return found


@pytest.mark.parametrize(
    "python", other_pythons() or [pytest.param("", marks=pytest.mark.skip("no other Python here"))]
)
def test_the_job_may_have_another_python_than_the_agent(python: str, tmp_path: Path) -> None:
    app = tmp_path / "app"
    app.mkdir()
    for source in (Path(APP) / "vmrun", Path(cloudpickle.__file__).parent):
        shutil.copytree(source, app / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "job.py").write_text(
        "import os, sys\n"
        "def f(x):\n"
        "    if x == 5:\n"
        "        os.abort()\n"
        "    if x == 6:\n"
        "        os.environ['A'] = 'b'; os.chdir('/'); os.close(1)\n"
        "    print('task', x)\n"
        "    return x * x, list(sys.version_info[:2]), os.environ.get('A'), os.environ['VMRUN_TASK']\n"
    )
    bench = Bench(tmp_path, python=python, app_path=str(app), code_path=str(tmp_path / "code"))
    try:
        bench.source(tmp_path / "code" / "job.py", "f")
        version = subprocess.check_output(
            [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], text=True
        )
        payloads = [pickle.dumps(number) for number in range(2000)]
        bench.engine.feed(TaskBlock(0, lengths_of(payloads), b"".join(payloads), python=version.strip()), "f")
        bench.engine.feed(block(2000, [1]), "f")
        bench.finish()
        minor = list(map(int, version.split(".")))
        assert bench.outcomes[7] == (49, minor, None, "7")
        assert bench.printed(7) == "task 7\n"
        assert sorted(n for n, status in bench.statuses.items() if status is not Status.ok) == [5, 6, 2000]
        assert (bench.outcomes[5]["kind"], bench.outcomes[2000]["kind"]) == ("signalled", "unpicklable")
    finally:
        bench.close()


# --- programs ---


def run_command(bench: Bench, *argv: str) -> Any:
    bench.command(*argv)
    bench.feed([None], "command")
    bench.finish()
    return bench.outcomes[0]


def test_a_program_that_succeeds_gives_none(make_bench: MakeBench, code: Path) -> None:
    (code / "hello.sh").write_text(
        '#!/bin/sh\necho "hello $1"; echo oops >&2; pwd; echo data > $VMRUN_OUTPUT/file; cat\n'
    )
    (code / "hello.sh").chmod(0o755)
    bench = make_bench(code_path=str(code))
    assert run_command(bench, "./hello.sh", "a b; $(exit)") is None
    assert bench.printed(0) == f"hello a b; $(exit)\n{code}\n"
    assert bench.printed(0, "stderr") == "oops\n"
    assert (bench.files[0, 0] / "file").read_text() == "data\n"


def test_a_program_that_fails_gives_its_exit_code(bench: Bench) -> None:
    said = run_command(bench, "sh", "-c", "exit 3")
    assert (said["kind"], said["code"]) == ("exited", 3)


def test_a_program_that_is_killed_gives_the_signal(bench: Bench) -> None:
    said = run_command(bench, "sh", "-c", "kill -11 $$")
    assert (said["kind"], said["message"]) == ("signalled", "killed by SIGSEGV")


def test_a_program_that_is_not_there(bench: Bench) -> None:
    said = run_command(bench, "./not-there")
    assert (said["kind"], said["type"]) == ("raised", "FileNotFoundError")
    assert "./not-there" in said["message"]


def test_a_script_runs_as_main_under_the_jobs_python(make_bench: MakeBench, code: Path) -> None:
    (code / "script.py").write_text(
        "import sys, os, vmrun, shapes\n"
        "print(__name__, sys.argv[1:], sys.executable, os.environ['VMRUN_JOB'])\n"
        "print('OMP_NUM_THREADS' in os.environ)\n"
        "sys.exit(3)\n"
    )
    bench = make_bench(code_path=str(code))
    said = run_command(bench, "{python}", "script.py", "--flag")
    assert (said["kind"], said["code"]) == ("exited", 3)
    # A program that is the whole job has all cores, so nobody limits its threads.
    assert bench.printed(0) == f"__main__ ['--flag'] {sys.executable} testjob\nFalse\n"


def test_a_running_script_is_heard(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import os, time\nprint('begun', end='')\nwhile not os.path.exists('go'):\n    time.sleep(0.01)\n"
    )
    bench.command("{python}", "-c", f"import os; os.chdir({str(tmp_path)!r}); exec(open('script.py').read())")
    bench.feed([None], "command")
    bench.until(lambda: bench.printed(0) == "begun")
    (tmp_path / "go").touch()
    bench.finish()
    assert bench.outcomes[0] is None


def test_a_program_may_use_the_grace_after_its_time_is_over(make_bench: MakeBench, tmp_path: Path) -> None:
    bench = make_bench(task_timeout=5.0, kill_grace=200)
    script = f"trap 'echo saving; touch {tmp_path}/saved; exit 0' TERM; echo ready; while true; do sleep 0.05; done"
    said = run_command(bench, "sh", "-c", script)
    assert said["kind"] == "timeout"
    assert (tmp_path / "saved").exists()
    assert bench.printed(0) == "ready\nsaving\n"


def test_a_program_that_does_not_listen_is_killed(make_bench: MakeBench) -> None:
    bench = make_bench(task_timeout=0.3, kill_grace=0.2)
    assert run_command(bench, "sh", "-c", "trap '' TERM; while true; do sleep 0.05; done")["kind"] == "timeout"
