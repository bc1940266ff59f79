"""What a worker calls: pickled functions, functions in the job's file, commands, and the reduce over stored results."""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import pickle
import resource
import signal
import struct
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from importlib.machinery import ModuleSpec
from io import BufferedReader
from types import ModuleType
from typing import Any, NamedTuple

from vmrun.core import parcels
from vmrun.core.blocks import PYTHON, BlockError, Form, ResultBlock, Status, read_failure
from vmrun.core.parcels import PARCELS, Parcel

from . import system
from .byvalue import ByValue
from .failures import by_exit_code, by_signal, by_system, foreign_python
from .guard import Place
from .processes import out_of_memory_kills

#: Name under which the job's own file is imported: not `__main__`, so that its guard does not fire.
JOB_MODULE = "__vmrun_job__"
#: Functions that stay loaded.
LOADED_MAX = 256
_LENGTH = struct.Struct("<Q")
#: Bytes of a block from which on it is looked for a parcel, and those in which its head is.
_APART_FROM, _START = 64 * 1024, 8 * 1024


class Call(NamedTuple):
    """How a task is called: from its payload to its argument, from that to its result."""

    load: Callable[[Any], Any]
    apply: Callable[[Any], Any]

    def __call__(self, payload: Any) -> Any:
        return self.apply(self.load(payload))


def as_it_is(payload: Any) -> Any:
    """The payload, for what needs no argument or has it in another form."""
    return payload


class Ended(BaseException):
    """A task's outcome that is not an exception of its own: a status and the payload that goes with it."""

    def __init__(self, status: Status, payload: bytes) -> None:
        super().__init__(status.name)
        self.status = status
        self.payload = payload


class Functions:
    """The functions that this worker was told of; each is loaded when a task first needs it."""

    def __init__(self, place: Place, app_path: str, by_value: ByValue, defaults: AbstractSet[str]) -> None:
        self._code_path = place.code_path
        self._memory = place.memory
        self._tools = os.path.join(place.directory, "path")
        self._app_path = app_path
        self._by_value = by_value
        #: Variables that programs do not get.
        self._defaults = defaults
        self._defined: dict[str, tuple[dict[str, Any], memoryview]] = {}
        self._loaded: OrderedDict[str, Callable[..., Any]] = OrderedDict()
        self._module: tuple[str, ModuleType] | None = None

    def define(self, head: dict[str, Any], data: memoryview) -> None:
        """Remember a definition; nothing of it is opened yet."""
        self._defined[head["function"]] = head, data

    def call(self, name: str, mode: str, python: str) -> Call:
        """How tasks of function `name` are called, whose payloads are in form `mode` and pickled by `python`.

        Raises whatever loading the function raises, and Ended when it must not be loaded.
        """
        head, data = self._defined[name]
        if head["kind"] == "command":
            return Call(as_it_is, Command(head["argv"], self._tools, self._app_path, self._defaults, self._memory))
        if python != PYTHON and mode != "results":
            raise Ended(Status.unpicklable, foreign_python("the task's argument", python))
        function = self._loaded.get(name)
        if function is None:
            function = self._load(head, data)
            self._loaded[name] = function
            if len(self._loaded) > LOADED_MAX:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(name)
        return caller(function, mode)

    def _load(self, head: dict[str, Any], data: memoryview) -> Callable[..., Any]:
        if self._code_path and self._code_path not in sys.path:
            sys.path.insert(0, self._code_path)
        if head["kind"] == "source":
            found: Any = self._job_module(head["path"])
            for part in head["name"].split("."):
                found = getattr(found, part)
        else:
            if head["python"] not in ("", PYTHON):
                raise Ended(Status.unpicklable, foreign_python("the function", head["python"]))
            found = pickle.loads(data)
        function: Callable[..., Any] = resolve(found, head["role"])
        if not callable(function):
            raise TypeError(f"{head.get('name') or head['function']} is a {type(function).__name__}, not a function")
        return function

    def _job_module(self, path: str) -> ModuleType:
        if self._module is not None and self._module[0] == path:
            return self._module[1]
        module = import_job(path)
        self._by_value.again(JOB_MODULE)
        self._module = path, module
        # Processes that the job starts itself get its functions by name.
        replace_link(os.path.join(self._tools, f"{JOB_MODULE}.py"), path)
        if self._tools not in sys.path:
            sys.path.append(self._tools)
        return module


class JobFinder(importlib.abc.MetaPathFinder):
    """Finds the job's own file, under its name, for whoever imports that."""

    def __init__(self, path: str) -> None:
        self._path = path

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """The file's, if it is asked for."""
        del path, target
        return importlib.util.spec_from_file_location(JOB_MODULE, self._path) if fullname == JOB_MODULE else None


def import_job(path: str) -> ModuleType:
    """The job's own file as a module. Raises whatever the file raises."""
    known = sys.modules.get(JOB_MODULE)
    if known is not None and getattr(known, "__file__", None) == path:
        # The process that this one was forked from has it; objects that it loaded are instances of those classes.
        return known
    spec = importlib.util.spec_from_file_location(JOB_MODULE, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[JOB_MODULE] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(JOB_MODULE, None)
        raise
    return module


def resolve(found: Any, role: str) -> Any:
    """The function to call: a job of vmrun's stands for its `fn`, or in a reduce for its `reducer`."""
    if not isinstance(found, type) and hasattr(found, "fn") and hasattr(found, "reducer"):
        if role == "reduce":
            if found.reducer is None:
                raise TypeError("the job has no reduce function")
            return found.reducer
        return found.fn
    return found


def caller(function: Callable[..., Any], mode: str) -> Call:
    """How `function` is called on payloads in form `mode`. Raises BlockError for a form that is none."""
    loads = parcels.load if mode in PARCELS.values() else pickle.loads
    if mode in ("one", PARCELS["one"]):
        return Call(loads, function)
    if mode in ("call", PARCELS["call"]):
        return Call(loads, lambda arguments: function(*arguments[0], **arguments[1]))
    if mode == "results":
        return Call(lambda payload: list(read_results(str(payload, "utf-8"))), function)
    raise BlockError(f"unknown form of arguments: {mode}")


def read_results(path: str) -> Iterator[Any]:
    """The results in a file of (u64 little-endian length, result block), unpickled, in order.

    Raises BlockError for a damaged file, Ended for another Python's pickles, ValueError for a task without result.
    """
    with open(path, "rb") as file:
        while start := file.read(_LENGTH.size):
            if len(start) < _LENGTH.size:
                raise BlockError(f"{path} is cut short")
            (size,) = _LENGTH.unpack(start)
            begin = file.tell()
            parcel = _parcel(file, size)
            if parcel is not None:
                yield parcel.load()
                del parcel
                file.seek(begin + size)
                continue
            file.seek(begin)
            data = file.read(size)
            if len(data) < size:
                raise BlockError(f"{path} is cut short")
            block = ResultBlock.decode(data)
            _check_python(block)
            plain = block.plain()
            if plain is not None:
                yield from plain
                continue
            for task, status, payload in block.items():
                if status is not Status.ok:
                    raise ValueError(f"task {task} has no result: {read_failure(payload).get('message', status.name)}")
                parcel = parcels.apart(payload) if block.form(task) == Form.parcel else None
                yield pickle.loads(payload) if parcel is None else parcel.load()


def _parcel(file: BufferedReader, size: int) -> Parcel | None:
    """The result in the block in the next `size` bytes of a file, if it is a parcel and the only one.

    It is read without a second copy. Raises BlockError for a damaged one, Ended for another Python's.
    """
    if size < _APART_FROM:
        return None
    begin = file.tell()
    try:
        block = ResultBlock.decode(file.read(_START), head_only=True)
    except BlockError:
        return None  # a long head, or none: what reads the whole tells
    if block.count != 1 or block.status[0] or block.form(block.first) != Form.parcel:
        return None
    _check_python(block)
    length = block.lengths[0]
    if length > size:
        raise BlockError("a block's payload is longer than the block")
    file.seek(begin + size - length)
    return Parcel.read(file, length)


def _check_python(block: ResultBlock) -> None:
    """Raises Ended for results that another Python pickled."""
    if block.python != PYTHON:
        raise Ended(Status.unpicklable, foreign_python("a result", block.python))


class Command:
    """A program that is run once per task, with the task's environment and output, and no input."""

    def __init__(self, argv: list[str], tools: str, app_path: str, defaults: AbstractSet[str], memory: int = 0) -> None:
        """`memory`: bytes that all tasks together may take; 0: not known."""
        self._memory = memory
        self._argv = list(argv)
        self._defaults = defaults
        self._env = {"PYTHONUNBUFFERED": "1"}
        if self._argv[:1] == ["{python}"]:
            self._argv[0] = sys.executable
            link_tools(tools, app_path)
            own = os.environ.get("PYTHONPATH", "")
            self._env["PYTHONPATH"] = f"{own}{os.pathsep}{tools}" if own else tools

    def __call__(self, payload: memoryview) -> None:
        """Run it. Raises Ended unless it exits with 0, OSError when it cannot be started."""
        del payload
        # The whole process group gets a SIGTERM; the program decides what it does then, this process waits for it.
        # A handler, not SIG_IGN, because the program would inherit the latter.
        env = {name: value for name, value in os.environ.items() if name not in self._defaults}
        before = signal.signal(signal.SIGTERM, _wait_on)
        kills = out_of_memory_kills()
        parent = os.getpid()
        try:
            done = subprocess.run(
                self._argv,
                stdin=subprocess.DEVNULL,
                env={**env, **self._env},
                preexec_fn=lambda: system.die_with(parent),
                check=False,
            )
        finally:
            signal.signal(signal.SIGTERM, before)
        if done.returncode > 0:
            raise Ended(Status.exited, by_exit_code(done.returncode))
        if done.returncode == -signal.SIGKILL and out_of_memory_kills() > kills:
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
            raise Ended(Status.oom, by_system(peak, self._memory))
        if done.returncode < 0:
            raise Ended(Status.signalled, by_signal(-done.returncode))


def _wait_on(number: int, frame: Any) -> None:
    del number, frame


def link_tools(tools: str, app_path: str) -> None:
    """Make `tools` a directory from which a program can import vmrun, and cloudpickle if it has no own.

    The application's directory itself would put all that it holds before the program's own packages.
    """
    found = importlib.util.find_spec("cloudpickle")
    names = ["vmrun"]
    origin = "" if found is None or found.origin is None else os.path.realpath(found.origin)
    if origin.startswith(os.path.realpath(app_path) + os.sep):
        names.append("cloudpickle")
    for name in names:
        replace_link(os.path.join(tools, name), os.path.join(app_path, name))


def replace_link(link: str, target: str) -> None:
    """Have `link` point to `target`, also while other workers do the same."""
    os.makedirs(os.path.dirname(link), exist_ok=True)
    temporary = f"{link}.{os.getpid()}"
    os.symlink(target, temporary)
    os.replace(temporary, link)
