"""Finding what to call: jobs, plain functions, modes of arguments, stored results; and whose code goes by value."""

from __future__ import annotations

import importlib
import os
import pickle
import struct
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from vmrun.agent.runner.byvalue import ByValue
from vmrun.agent.runner.functions import Ended, Functions, link_tools, read_results, resolve
from vmrun.agent.runner.guard import Place
from vmrun.core.blocks import PYTHON, BlockError, ResultBlock, Status, failure, lengths_of, read_failure


class Job:
    """Looks like a job of vmrun's."""

    def __init__(self, fn: Any, reducer: Any) -> None:
        self.fn = fn
        self.reducer = reducer


def test_a_job_stands_for_its_function_or_its_reducer() -> None:
    job = Job(abs, sum)
    assert resolve(job, "map") is abs
    assert resolve(job, "reduce") is sum
    assert resolve(len, "map") is len
    assert resolve(len, "reduce") is len
    with pytest.raises(TypeError, match="no reduce function"):
        resolve(Job(abs, None), "reduce")


@pytest.fixture
def functions(tmp_path: Path) -> Iterator[Functions]:
    before, modules = list(sys.path), set(sys.modules)
    place = Place("j", 0, 1, str(tmp_path), str(tmp_path))
    yield Functions(place, str(tmp_path / "app"), ByValue("", "j", "__vmrun_job__"), set())
    sys.path[:] = before
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def define(functions: Functions, function: Any, python: str = PYTHON, role: str = "map") -> None:
    head = {"function": "f", "kind": "pickle", "role": role, "python": python}
    functions.define(head, memoryview(cloudpickle.dumps(function)))


def test_arguments_come_alone_or_as_positional_and_named(functions: Functions) -> None:
    define(functions, lambda *positional, **named: (positional, named))
    one, call = (functions.call("f", mode, PYTHON) for mode in ("one", "call"))
    assert one(memoryview(pickle.dumps((1, 2)))) == (((1, 2),), {})
    assert call(memoryview(pickle.dumps(((1, 2), {"c": 3})))) == ((1, 2), {"c": 3})


def test_an_unknown_form_of_arguments_is_refused(functions: Functions) -> None:
    define(functions, abs)
    with pytest.raises(BlockError):
        functions.call("f", "telepathy", PYTHON)


class Bomb:
    """Tells when it is unpickled."""

    exploded = False

    def __reduce__(self) -> Any:
        return _explode, ()


def _explode() -> None:
    Bomb.exploded = True


def test_nothing_of_another_python_is_opened(functions: Functions) -> None:
    define(functions, Bomb(), python="3.99")
    with pytest.raises(Ended) as caught:
        functions.call("f", "one", PYTHON)
    assert caught.value.status is Status.unpicklable
    assert "the function was pickled by Python 3.99" in read_failure(caught.value.payload)["message"]
    with pytest.raises(Ended) as caught:
        functions.call("f", "one", "3.98")
    assert "argument was pickled by Python 3.98" in read_failure(caught.value.payload)["message"]
    assert not Bomb.exploded


def test_a_source_file_is_imported_once_without_being_main(functions: Functions, tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("FACTOR = 7\n")
    (tmp_path / "job.py").write_text(
        "import helper\n"
        "LOADED = []\n"
        "class Tools:\n"
        "    @staticmethod\n"
        "    def times(x):\n"
        "        return x * helper.FACTOR + len(LOADED)\n"
        "LOADED.append(1)\n"
        "def count(x):\n"
        "    LOADED.append(x)\n"
        "    return LOADED\n"
        "if __name__ == '__main__':\n"
        "    raise SystemExit('run as a program')\n"
    )
    for name in ("Tools.times", "count", "missing", "LOADED"):
        head = {"function": name, "kind": "source", "role": "map", "path": str(tmp_path / "job.py"), "name": name}
        functions.define(head, memoryview(b""))
    assert functions.call("count", "one", PYTHON)(memoryview(pickle.dumps(5))) == [1, 5]
    assert functions.call("Tools.times", "one", PYTHON)(memoryview(pickle.dumps(3))) == 23
    with pytest.raises(AttributeError, match="missing"):
        functions.call("missing", "one", PYTHON)
    with pytest.raises(TypeError, match="LOADED is a list, not a function"):
        functions.call("LOADED", "one", PYTHON)


# --- stored results ---


def stored(first: int, values: list[object], python: str = PYTHON) -> bytes:
    payloads = [pickle.dumps(value) for value in values]
    zeros = [0.0] * len(values)
    times = array("d", zeros), array("f", zeros)
    data = ResultBlock(
        first, bytes(len(values)), lengths_of(payloads), b"".join(payloads), *times, python=python
    ).encode()
    return struct.pack("<Q", len(data)) + data


def test_stored_results_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "results"
    path.write_bytes(stored(0, ["a", None]) + stored(2, []) + stored(2, [{"c": 3}]))
    assert list(read_results(str(path))) == ["a", None, {"c": 3}]
    path.write_bytes(b"")
    assert list(read_results(str(path))) == []


@pytest.mark.parametrize("keep", [3, 20, -1])
def test_stored_results_that_are_cut_short_are_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "results"
    path.write_bytes(stored(0, ["a", "b"])[:keep])
    with pytest.raises(BlockError):
        list(read_results(str(path)))


def test_stored_results_of_another_python_are_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "results"
    path.write_bytes(stored(0, [Bomb()], python="3.99"))
    with pytest.raises(Ended):
        list(read_results(str(path)))
    assert not Bomb.exploded


def test_a_task_without_a_result_is_named(tmp_path: Path) -> None:
    payload = failure(Status.raised, "it broke")
    times = array("d", [0.0]), array("f", [0.0])
    data = ResultBlock(4, bytes([Status.raised]), lengths_of([payload]), payload, *times).encode()
    path = tmp_path / "results"
    path.write_bytes(struct.pack("<Q", len(data)) + data)
    with pytest.raises(ValueError, match="task 4 has no result: it broke"):
        list(read_results(str(path)))


# --- by value ---


@pytest.fixture
def code(tmp_path: Path) -> Iterator[Path]:
    """A directory of the job's, with modules of its own and one that is installed inside it."""
    code = tmp_path / "code"
    installed = code / "env" / "lib" / "site-packages"
    installed.mkdir(parents=True)
    (code / "engine_test_shapes.py").write_text(
        "class Point:\n    class Inner:\n        pass\n"
        "    def __eq__(self, other):\n        return type(self) is type(other)\n"
    )
    (installed / "engine_test_installed.py").write_text("class Thing:\n    pass\n")
    sys.path[:0] = [str(code), str(installed)]
    names = ("engine_test_shapes", "engine_test_installed")
    modules = [importlib.import_module(name) for name in names]
    yield code
    del sys.path[:2]
    for module in modules:
        if module.__name__ in cloudpickle.list_registry_pickle_by_value():
            cloudpickle.unregister_pickle_by_value(module)
        del sys.modules[module.__name__]


def test_the_jobs_own_modules_travel_by_value_and_installed_ones_by_name(code: Path) -> None:
    shapes, installed = sys.modules["engine_test_shapes"], sys.modules["engine_test_installed"]
    ByValue(str(code), "job", "__vmrun_job__").scan()
    assert cloudpickle.list_registry_pickle_by_value() == {"engine_test_shapes"}
    assert b"__eq__" in cloudpickle.dumps(shapes.Point())
    assert len(cloudpickle.dumps(installed.Thing())) < 100


class Lazy:
    """Stands for a module, and loads it when it is asked anything; which does not work."""

    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise ImportError("not now")


def test_whatever_stands_among_the_modules_does_not_get_in_the_way(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given what tasks put there, and a package whose parent one of them has removed: it cannot tell where it lies
    (code / "engine_test_space" / "part").mkdir(parents=True)
    importlib.import_module("engine_test_space.part")
    monkeypatch.delitem(sys.modules, "engine_test_space")
    monkeypatch.setitem(sys.modules, "engine_test_lazy", Lazy())  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "engine_test_none", None)  # type: ignore[arg-type]
    try:
        with pytest.raises(KeyError):
            list(sys.modules["engine_test_space.part"].__path__)
        ByValue(str(code), "job", "__vmrun_job__").scan()
    finally:
        del sys.modules["engine_test_space.part"]
    assert cloudpickle.list_registry_pickle_by_value() == {"engine_test_shapes"}


def test_a_class_has_the_same_identity_in_every_worker(code: Path) -> None:
    """Two processes that imported the file by themselves: what one pickles is the other's own class."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        shapes = sys.modules["engine_test_shapes"]
        ByValue(str(code), "job", "__vmrun_job__").scan()
        os.write(writing, cloudpickle.dumps([shapes.Point(), shapes.Point.Inner()]))
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writing)
    shapes = sys.modules["engine_test_shapes"]
    ByValue(str(code), "job", "__vmrun_job__").scan()
    with open(reading, "rb") as file:
        point, inner = pickle.load(file)
    assert type(point) is shapes.Point
    assert type(inner) is shapes.Point.Inner
    assert point == shapes.Point()


def test_programs_find_vmrun_and_only_what_they_lack(tmp_path: Path) -> None:
    app = tmp_path / "app"
    for name in ("vmrun", "cloudpickle", "typing"):
        (app / name).mkdir(parents=True)
    tools = tmp_path / "tools"
    for _ in range(2):
        link_tools(str(tools), str(app))
    assert [path.name for path in tools.iterdir()] == ["vmrun"]
    assert (tools / "vmrun").resolve() == app / "vmrun"
