"""Why a job failed, told so that the first lines suffice: what happened, to how many tasks, where to read on."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Sequence

from vmrun.core.views import JobView, TaskFailure

from .text import count, paragraphs, visible

#: Failures that are shown with their traceback.
SHOWN_MAX = 3
#: Lines of one traceback; the middle of a longer one is left out.
TRACEBACK_LINES_MAX = 40
_WHICH_PROGRAMS = "name one that is on the machine, or the path of one of yours: `vmrun submit -- ./program`"
_MISSING = re.compile(r"No module named '([A-Za-z0-9_]+)")
#: Kinds of failures that an option may help against.
_ADVISED = ("oom", "timeout", "unpicklable")
_WORDS = {
    "timeout": "took longer than its limit",
    "oom": "ran out of memory",
    "unpicklable": "gave a result that cannot be pickled",
    "cancelled": "was cancelled",
    "lost": "was lost with its machine",
}


def what_happened(failed: TaskFailure) -> str:
    """One clause: `raised ValueError: bad seed`, `exited with code 3`, `was killed by SIGKILL`."""
    detail = visible(failed.message)
    if failed.kind == "raised":
        return f"raised {visible(failed.type)}: {detail}" if detail else f"raised {visible(failed.type)}"
    if failed.kind == "exited" and failed.exit is not None:
        return f"exited with code {failed.exit}"
    if failed.kind == "signalled" and failed.exit is not None:
        name = signal_name(failed.exit)
        # The message says more than that where there is more to say.
        said = detail if detail.startswith(f"killed by {name}") else f"killed by {name}"
        return f"was {said}"
    words = _WORDS.get(failed.kind, f"failed ({visible(failed.kind)})")
    return f"{words}: {detail}" if detail and detail not in words else words


def signal_name(number: int) -> str:
    """`SIGKILL` for 9."""
    try:
        return signal.Signals(abs(number)).name
    except ValueError:
        return f"signal {abs(number)}"


def _never_ran(view: JobView, failed: TaskFailure) -> bool:
    """Whether a program could not even be started: what then raised is nobody's own code."""
    return view.kind == "command" and failed.kind == "raised"


def who(view: JobView, task: int) -> str:
    """What a task is called: a script or a command is a job of one task, and nobody calls it so."""
    if view.kind in ("script", "command"):
        return "the script" if view.kind == "script" else "the program"
    if view.reduce and task == view.tasks.total - 1:
        return "the reduce"
    return f"task {task}"


def details(view: JobView, failures: Sequence[TaskFailure]) -> Iterator[str]:
    """The first few failures with their tracebacks, then how many more there are.

    Of a single one the traceback alone: what happened is what `summary` says.
    """
    for failed in failures[:SHOWN_MAX]:
        if len(failures) > 1 or view.error:
            yield f"{who(view, failed.task)} {what_happened(failed)}"
        if failed.traceback.strip() and not _never_ran(view, failed):
            yield from (f"  {line}" for line in _excerpt(paragraphs(failed.traceback).rstrip().split("\n")))
    more = len(failures) - SHOWN_MAX
    if more > 0:
        yield f"... and {count(more, 'more task')}: `vmrun result {view.id} --json` lists all"


def _excerpt(lines: list[str]) -> list[str]:
    if len(lines) <= TRACEBACK_LINES_MAX:
        return lines
    half = TRACEBACK_LINES_MAX // 2
    left_out = len(lines) - 2 * half
    return [*lines[:half], f"... {left_out} lines left out ...", *lines[-half:]]


def summary(view: JobView, failures: Sequence[TaskFailure]) -> tuple[str, str]:
    """(message, hint) for the error that ends the command."""
    if view.error:
        return paragraphs(view.error), paragraphs(view.hint) or f"`vmrun logs {view.id}` shows what was written"
    if not failures:
        return f"job {view.id} failed", f"`vmrun status {view.id}` tells more"
    first = failures[0]
    if _never_ran(view, first):
        return f"the program cannot be started: {visible(first.message)}", _WHICH_PROGRAMS
    advice = _advice(first)
    if view.kind in ("script", "command"):
        message = f"{who(view, first.task)} {what_happened(first)}"
        return message, f"{advice}`vmrun logs {view.id}` shows its output again"
    if len(failures) == 1:
        message = f"{who(view, first.task)} {what_happened(first)}"
    else:
        message = f"{len(failures):,} of {count(view.tasks.total, 'task')} failed"
    hint = f"{advice}`vmrun logs {view.id} --task {first.task}` shows its output"
    return message, f"{hint}; `vmrun result {view.id}` has the others' results" if view.tasks.done else hint


def _advice(failed: TaskFailure) -> str:
    """What to do about a failure of this kind, to go before where to read more."""
    missing = _MISSING.search(failed.message) if failed.type == "ModuleNotFoundError" else None
    if missing is not None:
        return f"`--with {missing[1]}` installs a package for the job (if that is its name); "
    from vmrun.watch.results import HINTS

    return f"{HINTS[failed.kind]}; " if failed.kind in _ADVISED else ""
