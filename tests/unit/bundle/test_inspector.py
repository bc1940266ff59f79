"""Job files, imported in a process of their own: whatever they do, the client hears what they are, or why not."""

from __future__ import annotations

import os
import pickle
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from vmrun.artefact.app import app_directory
from vmrun.bundle.inspector import Inspection, JobInterpreter, inspect_job
from vmrun.bundle.script import read_script
from vmrun.core.blocks import PYTHON, TaskBlock
from vmrun.core.clock import SystemClock
from vmrun.core.errors import UsageError

Inspect = Callable[..., Inspection]


class LateClock(SystemClock):
    """The real clock, until something has happened; from then on it is too late for everything."""

    def __init__(self, when: Callable[[], bool]) -> None:
        self._when = when

    def monotonic(self) -> float:
        return super().monotonic() + (1000.0 if self._when() else 0.0)


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return app_directory(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def inspect(tmp_path: Path, app: Path) -> Inspect:
    """Write a job file, and perhaps others beside it, and ask what it is."""

    def ask(text: str, name: str = "", when: Callable[[], bool] = lambda: False, **others: str) -> Inspection:
        folder, out = tmp_path / "project", tmp_path / "out"
        folder.mkdir()
        out.mkdir()
        for other, content in others.items():
            (folder / f"{other}.py").write_text(textwrap.dedent(content), "utf-8")
        path = folder / "job.py"
        path.write_text(textwrap.dedent(text), "utf-8")
        interpreter = JobInterpreter(Path(sys.executable), app)
        clock = LateClock(when)
        return inspect_job(read_script(path), name, interpreter=interpreter, directory=out, clock=clock, timeout=120)

    return ask


def inputs(found: Inspection) -> list[object]:
    assert found.arguments is not None
    data = found.arguments.path.read_bytes()
    return [pickle.loads(payload) for _, payload in TaskBlock.decode(data).items()] if data else []


def test_a_job_over_inputs(inspect: Inspect) -> None:
    found = inspect("""
        import vmrun

        print("loading")

        @vmrun.job(over=range(3), retries=2, task_timeout="5m", memory="1GB")
        def simulate(seed):
            return seed

        @simulate.reduce
        def total(results):
            return sum(results)
        """)
    assert (found.kind, found.name, found.reduce, found.python) == ("map", "simulate", True, PYTHON)
    assert found.options == {"retries": 2, "task_timeout": 300.0, "memory": 10**9}
    assert found.output == "loading\n"
    assert found.arguments is not None
    assert (found.arguments.count, found.arguments.call) == (3, "one")
    assert inputs(found) == [0, 1, 2]


def test_a_job_without_inputs_is_one_call(inspect: Inspect) -> None:
    found = inspect("import vmrun\n@vmrun.job\ndef once(): ...\n")
    assert found.arguments is not None
    assert (found.arguments.count, found.arguments.call, found.reduce) == (1, "call", False)
    assert inputs(found) == [((), {})]


def test_a_job_over_nothing_has_no_tasks(inspect: Inspect) -> None:
    found = inspect("import vmrun\n@vmrun.job(over=[])\ndef never(x): ...\n")
    assert found.arguments is not None
    assert (found.kind, found.arguments.count) == ("map", 0)


def test_inputs_may_be_made_by_local_modules_and_of_classes_in_the_file(inspect: Inspect) -> None:
    """They name the module that the file is imported as, here and on the VM."""
    found = inspect(
        """
        from dataclasses import dataclass
        import vmrun
        from numbers_of import many

        @dataclass
        class Point:
            x: int

        @vmrun.job(over=lambda: (Point(x) for x in many()))
        def simulate(point): ...
        """,
        numbers_of="def many():\n    return [4, 5]\n",
    )
    assert found.arguments is not None
    data = found.arguments.path.read_bytes()
    assert found.arguments.count == 2
    assert b"__vmrun_job__" in data
    assert b"Point" in data


def test_a_script_is_not_run(inspect: Inspect, tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    found = inspect(f"import vmrun\nopen({str(witness)!r}, 'w')\n")
    assert found == Inspection("script")
    assert not witness.exists()


def test_a_file_without_a_job_after_all_is_a_script(inspect: Inspect) -> None:
    found = inspect("import vmrun\nif __name__ == '__main__':\n    @vmrun.job\n    def f(): ...\n")
    assert (found.kind, found.arguments) == ("script", None)


def test_the_file_is_not_main(inspect: Inspect) -> None:
    found = inspect("""
        import vmrun, sys

        @vmrun.job(over=[__name__, *sys.argv[1:], sys.modules[__name__].__file__[-6:]])
        def f(x): ...

        if __name__ == "__main__":
            raise SystemExit("not here")
        """)
    assert inputs(found) == ["__vmrun_job__", "job.py"]


TWO = "import vmrun\n@vmrun.job(over=[1])\ndef first(x): ...\n@vmrun.job(over=[2], name='Nice')\ndef second(x): ...\n"


def test_two_jobs_and_no_name_are_refused(inspect: Inspect) -> None:
    with pytest.raises(UsageError, match=r"job\.py has 2 jobs: first, second") as caught:
        inspect(TWO)
    assert caught.value.hint.endswith("job.py::first")


def test_a_name_picks_one(inspect: Inspect) -> None:
    found = inspect(TWO, "second")
    assert (found.name, found.options, inputs(found)) == ("second", {"name": "Nice"}, [2])


def test_an_unknown_name_is_refused_with_the_one_that_was_meant(inspect: Inspect) -> None:
    with pytest.raises(UsageError, match=r"job\.py has no job secnd") as caught:
        inspect(TWO, "secnd")
    assert caught.value.hint == "did you mean second?"


def test_an_unknown_name_far_from_all_is_refused_with_all(inspect: Inspect) -> None:
    with pytest.raises(UsageError) as caught:
        inspect(TWO, "zzz")
    assert caught.value.hint == "its jobs: first, second"


def test_a_plain_function_is_not_a_job(inspect: Inspect) -> None:
    with pytest.raises(UsageError, match="helper is not a job") as caught:
        inspect("def helper(): ...\n", "helper")
    assert caught.value.hint == "write @vmrun.job above it; jobs: none"


def test_two_names_for_one_job_are_one_job(inspect: Inspect) -> None:
    assert inspect("import vmrun\n@vmrun.job\ndef f(): ...\nalias = f\n").name == "f"


def test_jobs_of_other_modules_count_when_the_file_has_none(inspect: Inspect) -> None:
    shared = "import vmrun\n@vmrun.job(over=[1])\ndef shared(x): ...\n"
    assert inspect("import vmrun\nvmrun.job\nfrom lib import shared\n", lib=shared).name == "shared"


def test_jobs_of_other_modules_do_not_count_beside_its_own(inspect: Inspect) -> None:
    shared = "import vmrun\n@vmrun.job(over=[1])\ndef shared(x): ...\n"
    assert inspect("import vmrun\nfrom lib import shared\n@vmrun.job\ndef own(): ...\n", lib=shared).name == "own"


# --- files that do not load ---


def test_an_error_on_import_shows_the_files_own_traceback(inspect: Inspect) -> None:
    with pytest.raises(UsageError) as caught:
        inspect("import vmrun\nvmrun.job\nimport lib\n", lib="def f():\n    return 1 / 0\nf()\n")
    message = caught.value.message
    assert "job.py cannot be imported: ZeroDivisionError: division by zero" in message
    assert 'job.py", line 3, in <module>' in message
    assert 'lib.py", line 2, in f' in message
    for internal in ("inspect_main", "importlib", "frozen"):
        assert internal not in message


@pytest.mark.parametrize(
    ("statement", "package"), [("import nothing_like_it", "nothing_like_it"), ("import nothing.x", "nothing")]
)
def test_a_missing_module_hints_at_the_dependency(inspect: Inspect, statement: str, package: str) -> None:
    with pytest.raises(UsageError, match="ModuleNotFoundError") as caught:
        inspect(f"import vmrun\nvmrun.job\n{statement}\n")
    assert f"--with {package}, or dependencies = [" in caught.value.hint


def test_a_missing_module_of_another_name_hints_at_the_package(inspect: Inspect) -> None:
    with pytest.raises(UsageError) as caught:
        inspect("import vmrun\nvmrun.job\nraise ModuleNotFoundError('no cv2', name='cv2')\n")
    assert "--with opencv-python-headless" in caught.value.hint


def test_a_wrong_option_is_refused_with_its_line(inspect: Inspect) -> None:
    with pytest.raises(UsageError, match=r"job\.py, line 3: @vmrun\.job: retries: -1 is not") as caught:
        inspect("import vmrun\n\n@vmrun.job(retries=-1)\ndef f(): ...\n")
    assert caught.value.hint


def test_exit_on_import_is_refused(inspect: Inspect) -> None:
    with pytest.raises(UsageError, match=r"called exit\(3\) while it was imported") as caught:
        inspect("import vmrun, sys\nvmrun.job\nsys.exit(3)\n")
    assert "__main__" in caught.value.hint


def test_hard_exit_on_import_is_refused_with_the_last_words(inspect: Inspect) -> None:
    with pytest.raises(UsageError, match=r"(?s)ended with exit code 7.*last words"):
        inspect("import vmrun, os\nvmrun.job\nprint('last words', flush=True)\nos._exit(7)\n")


def test_a_crash_on_import_is_refused(inspect: Inspect) -> None:
    with pytest.raises(UsageError, match="was killed by SIGSEGV"):
        inspect("import vmrun, os, signal\nvmrun.job\nos.kill(os.getpid(), signal.SIGSEGV)\n")


def test_endless_work_on_import_is_ended_with_all_that_it_started(inspect: Inspect, tmp_path: Path) -> None:
    """Two processes hang; when the client goes on, neither is alive: their ends of a pipe are closed."""
    pipe, hanging = tmp_path / "alive", tmp_path / "hanging"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(UsageError, match=r"job\.py was still being imported after 2m 00s") as caught:
            inspect(
                f"""
                import vmrun, os, signal
                vmrun.job
                held = open({str(pipe)!r}, "w")
                if os.fork() == 0:
                    open({str(hanging)!r}, "w")
                while True:
                    signal.pause()
                """,
                when=hanging.exists,
            )
        assert "work belongs in tasks" in caught.value.hint
        os.set_blocking(reader, True)
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)


def test_endless_inputs_are_said_to_be_the_inputs(inspect: Inspect, tmp_path: Path) -> None:
    hanging = tmp_path / "hanging"
    with pytest.raises(UsageError, match=r"was still giving the inputs \(`over`\) of job f after"):
        inspect(
            f"""
            import vmrun, signal

            def endless():
                yield 1
                open({str(hanging)!r}, "w")
                while True:
                    signal.pause()

            @vmrun.job(over=endless)
            def f(x): ...
            """,
            when=hanging.exists,
        )


def test_what_a_finished_file_left_running_is_ended(inspect: Inspect, tmp_path: Path) -> None:
    pipe = tmp_path / "alive"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        found = inspect(f"""
            import vmrun, subprocess
            subprocess.Popen(["sleep", "600"], stdout=open({str(pipe)!r}, "w"))

            @vmrun.job
            def f(): ...
            """)
        assert found.kind == "map"
        os.set_blocking(reader, True)
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)


def test_threads_that_never_end_do_not_hold_the_answer_back(inspect: Inspect) -> None:
    found = inspect("""
        import vmrun, threading
        threading.Thread(target=threading.Event().wait).start()

        @vmrun.job
        def f(): ...
        """)
    assert found.kind == "map"


def test_of_much_output_the_end_is_kept(inspect: Inspect) -> None:
    found = inspect("import vmrun\nprint('x' * 5_000_000)\nprint('the end')\n@vmrun.job\ndef f(): ...\n")
    assert found.output.endswith("x\nthe end\n")
    assert len(found.output) <= 64 * 1024


def test_inputs_that_raise_show_the_files_own_traceback(inspect: Inspect) -> None:
    with pytest.raises(UsageError) as caught:
        inspect(
            "import vmrun\ndef g():\n    yield 1\n    raise OSError('no list')\n@vmrun.job(over=g)\ndef f(x): ...\n"
        )
    message = caught.value.message
    assert "the inputs (`over`) of job f raised OSError: no list" in message
    assert "line 4, in g" in message
    assert "arguments.py" not in message


def test_an_argument_that_cannot_be_pickled_is_named(inspect: Inspect, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"job\.py: job f: argument 1 \(_thread.lock\) cannot be pickled"):
        inspect("import vmrun, threading\n@vmrun.job(over=[1, threading.Lock()])\ndef f(x): ...\n")
    assert not (tmp_path / "out" / "arguments.blocks").exists()


# --- surroundings ---


def test_an_interpreter_that_is_none_is_refused(tmp_path: Path, app: Path) -> None:
    (tmp_path / "job.py").write_text("import vmrun\nvmrun.job\n")
    script = read_script(tmp_path / "job.py")
    with pytest.raises(UsageError, match="No such file") as caught:
        inspect_job(
            script, interpreter=JobInterpreter(tmp_path / "python", app), directory=tmp_path, clock=SystemClock()
        )
    assert "--python" in caught.value.hint


def test_the_clients_own_packages_are_not_seen(tmp_path: Path, app: Path) -> None:
    """Under an interpreter without packages of its own there are vmrun and cloudpickle, and nothing else of ours."""
    import venv

    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    (tmp_path / "job.py").write_text(
        "import vmrun, importlib.util\n"
        "def seen(name): return importlib.util.find_spec(name) is not None\n"
        "@vmrun.job(over=[seen('obstore'), seen('typer'), seen('cloudpickle'), vmrun.__file__])\n"
        "def f(x): ...\n"
    )
    found = inspect_job(
        read_script(tmp_path / "job.py"),
        interpreter=JobInterpreter(python, app),
        directory=tmp_path,
        clock=SystemClock(),
    )
    assert inputs(found) == [False, False, True, str(app / "vmrun" / "__init__.py")]


def test_modules_beside_the_job_win_over_ours(inspect: Inspect) -> None:
    """Names of files in this program's folder mean nothing to a job: its own come first."""
    found = inspect(
        "import vmrun, script, importlib.util as u\n"
        "@vmrun.job(over=[script.NAME, u.find_spec('modules')])\ndef f(x): ...\n",
        script="NAME = 'mine'\n",
    )
    assert inputs(found) == ["mine", None]


def test_nothing_is_left_in_the_users_folder(inspect: Inspect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.delenv("PYTHONPYCACHEPREFIX", raising=False)
    inspect("import vmrun, lib\n@vmrun.job\ndef f(): ...\n", lib="")
    assert sorted(path.name for path in (tmp_path / "project").iterdir()) == ["job.py", "lib.py"]
