"""`@vmrun.job`: marks a function as a job over inputs, and says what the job asks for.

Imported by every job file, on the client and under the job's interpreter, therefore light: standard library only.
"""

from __future__ import annotations

import functools
import re
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, ParamSpec, TypedDict, TypeVar, Unpack, overload

from .core.errors import UsageError
from .core.units import parse_duration, parse_money, parse_size

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])

#: Characters of a job's name; it is shown in tables, never part of a key or a path.
NAME_MAX = 200
#: More attempts than this at one task are a loop, not a policy.
RETRIES_MAX = 100
#: Machines of one job, and further ones in the place of lost ones.
VMS_MAX, REPLACED_MAX = 256, 1000
ARCHITECTURES = ("x86_64", "arm64")
#: Whichever is cheaper.
ANY_ARCH = "any"
#: At which prices machines may be rented.
MARKETS = ("on-demand", "spot", "spot-with-fallback")
#: What `memory="auto"` is checked to.
AUTO_MEMORY = -1
#: What may become of a task that runs out of memory.
ON_OOM = ("fail", "grow")
#: Bytes; a limit below this would end every task.
TASK_MEMORY_MIN = 32 * 10**6
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PYTHON = re.compile(r"3\.\d{1,2}")
#: What is called for what a job shares; any other object is shared itself, though it may be callable.
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial)
#: Flags of a code object whose call gives no result yet: generator, coroutine, asynchronous generator.
_DEFERRED = 0x20 | 0x80 | 0x200


class JobOptions(TypedDict, total=False):
    """What may stand beside `over` in `@vmrun.job(...)`; the command line's options of the same names win."""

    #: Where to run: `local`, `docker`, …
    on: str
    cpus: int
    #: `512GB`, or bytes, or `auto`: by what tasks took in earlier jobs or in a sample. `disk` is a size, too.
    memory: str | int
    disk: str | int
    #: `x86_64`, `arm64`, or `any`; default: that of this computer.
    arch: str
    instance_type: str
    region: str
    zone: str
    #: `on-demand`, `spot` (cheaper, and may be taken back), or `spot-with-fallback`; for rented machines only.
    market: str
    #: Machines that share the job, each with all of the above; and how many of those that are lost are replaced.
    vms: int
    replace_lost: int
    #: Worker processes; default: one per core, fewer if `threads_per_task` or `task_memory` says so.
    workers: int
    #: Cores for each task: workers = cores // N, and OMP_NUM_THREADS and its kin are N.
    threads_per_task: int
    #: The most memory that one task takes: `8GB`, or bytes. No more run at once than fit, and who takes more ends.
    task_memory: str | int
    #: A new process for each task, in which nothing of an earlier one is left.
    fresh: bool
    #: Further attempts at a task that failed.
    retries: int
    #: `5m`, or seconds; likewise `max_lifetime`, `keep_warm` and `keep_on_failure`.
    task_timeout: str | float
    max_lifetime: str | float
    keep_warm: str | float
    #: How long the machine stays for debugging after the job failed there.
    keep_on_failure: str | float
    #: Dollars that the job may cost, `25` or `"$25"`: its machine ends the job, and itself, in time.
    max_cost: str | float
    #: Whether a machine will do whose price is not known, on which `max_cost` cannot hold.
    allow_unknown_price: bool
    #: What becomes of a task that runs out of memory: `fail`, or `grow`: it runs again on the next larger machine.
    on_oom: str
    #: What the job is called in tables.
    name: str
    #: Environment variables of the tasks.
    env: dict[str, str]


class Job(Generic[P, R]):
    """A function, the inputs to call it with, and what it asks for. Calling a job calls its function, right here.

    `fn` is the function; `over` the inputs (an iterable, or a callable without arguments that gives one), each the
    single argument of one task; without `over` (None) the job is one task that calls `fn()`. `options` holds the
    options that were given, checked, sizes in bytes and durations in seconds. `reducer` is what `reduce` registered,
    `shared` what all tasks share.
    """

    def __init__(self, fn: Callable[P, R], over: object, options: dict[str, Any], shared: object = None) -> None:
        functools.update_wrapper(self, fn)
        self.fn = fn
        self.over = over
        self.shared = shared
        self.options = options
        self.name = str(options.get("name") or getattr(fn, "__name__", type(fn).__name__))
        self.reducer: Callable[..., Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A task that names the job takes it along; what is shared reaches it another way.
        return {**self.__dict__, "shared": None}

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.fn(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<vmrun.job {self.name!r}>"

    def reduce(self, fn: F) -> F:
        """Register `fn` to be called on the VM with all results, in order, when every task has succeeded.

        A decorator: gives `fn` back. Raises UsageError for a second reducer.
        """
        if self.reducer is not None:
            raise UsageError(
                f"job {self.name!r} has a reducer already: {_name_of(self.reducer)}",
                hint="a job has one reduce; call the other function from it",
            )
        _check_function(fn, f"the reducer of job {self.name!r}")
        self.reducer = fn
        return fn


@overload
def job(fn: Callable[P, R], /) -> Job[P, R]: ...
@overload
def job(
    *, over: object = None, shared: object = None, **options: Unpack[JobOptions]
) -> Callable[[Callable[P, R]], Job[P, R]]: ...
def job(fn: Callable[P, R] | None = None, /, *, over: object = None, shared: object = None, **options: Any) -> Any:
    """Make a function a job: `@vmrun.job`, or `@vmrun.job(over=..., retries=2, task_timeout="5m", ...)`.

    `over` is any iterable, or a callable without arguments that gives one; it is walked once, at submit. Without
    it the job is one task that calls the function without arguments. `shared` is what tasks get from `vmrun.shared()`:
    a function without arguments that gives an object (called once, at submit), or the object itself. Raises UsageError
    for anything that cannot work.
    """
    checked = check_options(options, "@vmrun.job")
    _check_over(over)
    if fn is None:
        return functools.partial(_decorate, over=over, options=checked, shared=shared)
    return _decorate(fn, over=over, options=checked, shared=shared)


def _decorate(fn: Callable[P, R], *, over: object, options: dict[str, Any], shared: object) -> Job[P, R]:
    if isinstance(fn, Job):
        raise UsageError(f"{fn!r} is a job already", hint="write @vmrun.job once per function")
    _check_function(fn, "@vmrun.job")
    return Job(fn, over, options, shared)


def _check_function(fn: object, what: str) -> None:
    if not callable(fn):
        raise UsageError(
            f"{what}: {fn!r} is not a function",
            hint="write inputs as a keyword: @vmrun.job(over=range(1000))",
        )
    code = getattr(fn, "__code__", None)
    if code is not None and code.co_flags & _DEFERRED:
        raise UsageError(
            f"{what}: {_name_of(fn)} is a coroutine or generator function, whose call gives no value yet",
            hint="let a plain function return list(...) or asyncio.run(...) of it",
        )


def _check_over(over: object) -> None:
    if over is None or (callable(over) and not isinstance(over, Iterable)):
        return
    if isinstance(over, str | bytes | bytearray):
        raise UsageError(
            f"@vmrun.job: over={over[:40]!r} would be one task per character",
            hint="give a list, such as over=[...], or over=list(text) if that is meant",
        )
    if not isinstance(over, Iterable) and not hasattr(over, "__getitem__"):
        hint = f"did you mean over=range({over})?" if isinstance(over, int) else "give a list, a range, a generator…"
        raise UsageError(f"@vmrun.job: over={over!r} is not iterable", hint=hint)


def inputs_of(one: Job[Any, Any]) -> Iterable[Any]:
    """The job's inputs, walked anew. Whatever the user's own callable raises comes through."""
    over = one.over
    if callable(over) and not isinstance(over, Iterable):
        over = over()
    if not isinstance(over, Iterable) and not hasattr(over, "__getitem__"):
        raise UsageError(
            f"`over` of job {one.name!r} gave {type(over).__name__}, which is not iterable",
            hint="let it return a list, a range, a generator…",
        )
    return over  # type: ignore[return-value]


def shared_of(one: Job[Any, Any]) -> object:
    """What the job's tasks share, None for nothing. Whatever the user's own function raises comes through."""
    return one.shared() if isinstance(one.shared, _FUNCTIONS) else one.shared


def _name_of(fn: object) -> str:
    return str(getattr(fn, "__qualname__", fn))


# --- options ---


def check_options(options: Mapping[str, object], where: str) -> dict[str, Any]:
    """Options by name, checked: sizes as bytes, durations as seconds; None means "not said" and is dropped.

    `where` stands in messages. Raises UsageError for an unknown name or a value that cannot be used.
    """
    checked = {}
    for name, value in options.items():
        check = CHECKS.get(name)
        if check is None:
            raise unknown_option(name, where, CHECKS)
        if value is not None:
            checked[name] = check(value, f"{where}: {name}")
    return checked


def unknown_option(name: str, where: str, known: Iterable[str], kind: type[UsageError] = UsageError) -> UsageError:
    """The error for an option that does not exist; its hint names what is close to it, or all there are."""
    import difflib

    names = sorted(known)
    close = difflib.get_close_matches(name.replace("-", "_"), names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(names)}"
    return kind(f"{where}: unknown option {name[:80]!r}", hint=hint)


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{where}: expected a text, found {value!r:.80}", hint="write it in quotes")
    return value


def _name(value: object, where: str) -> str:
    text = _text(value, where)
    if len(text) > NAME_MAX or not text.isprintable():
        raise UsageError(
            f"{where}: {text[:40]!r} is not a name",
            hint=f"at most {NAME_MAX} printable characters, on one line",
        )
    return text


def _whole(value: object, where: str, *, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise UsageError(
            f"{where}: {value!r:.80} is not a whole number from {least} to {most}",
            hint="write it as a number, without quotes or unit",
        )
    return value


def _flag(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{where}: {value!r:.80} is neither true nor false", hint="write it without quotes")
    return value


def _size(value: object, where: str) -> int:
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise UsageError(f"{where}: {value!r:.80} is not a size", hint="write a size such as 16GB")
    return parse_size(value, where)


def _memory(value: object, where: str) -> int:
    return AUTO_MEMORY if value == "auto" else _size(value, where)


def _task_memory(value: object, where: str) -> int:
    size = _size(value, where)
    if size < TASK_MEMORY_MIN:
        raise UsageError(
            f"{where}: {value!r:.80} is less than the {TASK_MEMORY_MIN // 10**6} MB that Python itself takes",
            hint="write the most that one task takes, such as 2GB; the machine's memory is `memory`",
        )
    return size


def _duration(value: object, where: str) -> float:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise UsageError(f"{where}: {value!r:.80} is not a duration", hint="write a duration such as 90s or 2h30m")
    return parse_duration(value, where)


def _positive_duration(value: object, where: str) -> float:
    seconds = _duration(value, where)
    if seconds <= 0:
        raise UsageError(f"{where}: {value!r:.80} is no time at all", hint="leave it out for no limit")
    return seconds


def _max_cost(value: object, where: str) -> float:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise UsageError(f"{where}: {value!r:.80} is no amount of money", hint="write dollars, such as 25 or 2.50")
    dollars = parse_money(value, where)
    if dollars <= 0:
        raise UsageError(f"{where}: {value!r:.80} pays for nothing", hint="leave it out for no limit")
    return dollars


def _arch(value: object, where: str) -> str:
    known = (*ARCHITECTURES, ANY_ARCH)
    if value not in known:
        raise UsageError(f"{where}: unknown architecture {value!r:.80}", hint=f"one of {', '.join(known)}")
    return str(value)


def _market(value: object, where: str) -> str:
    if value not in MARKETS:
        raise UsageError(f"{where}: unknown market {value!r:.80}", hint=f"one of {', '.join(MARKETS)}")
    return str(value)


def _on_oom(value: object, where: str) -> str:
    if value not in ON_OOM:
        raise UsageError(
            f"{where}: {value!r:.80} is not what can become of a task that runs out of memory",
            hint="fail, or grow: it runs again on the next larger machine",
        )
    return str(value)


def _env(value: object, where: str) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{where}: expected names and texts, found {value!r:.80}", hint='such as {"LEVEL" = "2"}')
    for name, text in value.items():
        if not isinstance(name, str) or not _ENV_NAME.fullmatch(name):
            raise UsageError(f"{where}: {name!r:.80} is not the name of an environment variable")
        if not isinstance(text, str) or "\0" in text:
            raise UsageError(f"{where}.{name}: expected a text, found {text!r:.80}", hint="write it in quotes")
    return dict(value)


def check_python(value: object, where: str) -> str:
    """`value` if it is a Python `major.minor`; else UsageError."""
    if not isinstance(value, str) or not _PYTHON.fullmatch(value):
        raise UsageError(f"{where}: {value!r:.80} is not a version of Python", hint='write it as text, such as "3.12"')
    return value


#: How each option is checked and brought into its one form.
CHECKS: dict[str, Callable[[object, str], Any]] = {
    "on": _text,
    "cpus": functools.partial(_whole, least=1, most=100_000),
    "memory": _memory,
    "disk": _size,
    "arch": _arch,
    "instance_type": _text,
    "region": _text,
    "zone": _text,
    "market": _market,
    "vms": functools.partial(_whole, least=1, most=VMS_MAX),
    "replace_lost": functools.partial(_whole, least=0, most=REPLACED_MAX),
    "workers": functools.partial(_whole, least=1, most=100_000),
    "threads_per_task": functools.partial(_whole, least=1, most=100_000),
    "task_memory": _task_memory,
    "fresh": _flag,
    "retries": functools.partial(_whole, least=0, most=RETRIES_MAX),
    "task_timeout": _positive_duration,
    "max_lifetime": _positive_duration,
    "keep_warm": _duration,
    "keep_on_failure": _duration,
    "max_cost": _max_cost,
    "allow_unknown_price": _flag,
    "on_oom": _on_oom,
    "name": _name,
    "env": _env,
}
