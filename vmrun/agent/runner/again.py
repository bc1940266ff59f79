"""Runs one failed task again, where its machine is held for debugging: `vmrun-again [--pdb] TASK`.

Runs under the job's interpreter, as the job's user, in the terminal of whoever looks for the fault: what the task
writes is seen at once, and what it raises ends this program as it would end any other.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vmrun.core.blocks import PYTHON

from .functions import caller, import_job, resolve


def main(argv: Sequence[str]) -> int:
    """`argv`: the directory of failed tasks, then what the person gave. Whatever the task raises comes through."""
    parser = argparse.ArgumentParser(prog="vmrun-again", description="Run one failed task again.")
    parser.add_argument("failed", help=argparse.SUPPRESS)
    parser.add_argument("task", type=int, help="number of the task")
    parser.add_argument("--pdb", action="store_true", help="open the debugger where it raises")
    given = parser.parse_args(argv)
    folder = Path(given.failed, str(given.task))
    try:
        call: dict[str, Any] = json.loads((folder / "call.json").read_bytes())
    except OSError:
        known = sorted((name for name in os.listdir(given.failed) if name.isdigit()), key=int)
        parser.error(f"nothing is kept of a failed task {given.task}; there are: {', '.join(known)}")
    os.environ["VMRUN_TASK"] = str(given.task)
    if call["kind"] == "command":
        sys.stdout.flush()
        os.execvp(call["argv"][0], call["argv"])  # noqa: S606 -- the very program that failed, and no shell
    if call["python"] != PYTHON:
        parser.error(f"the task's argument was pickled by Python {call['python']}; this is {PYTHON}")
    if not (folder / "argument").exists():
        parser.error(f"the argument of task {given.task} was too large to be laid out here")
    run = _prepared(folder, call)
    value = _debugged(run) if given.pdb else run()
    sys.stdout.write(f"task {given.task} returned {value!r}\n")
    return 0


def _prepared(folder: Path, call: dict[str, Any]) -> Callable[[], Any]:
    """The call, with nothing of it done yet."""

    def run() -> Any:
        # What the job's own environment lacks, cloudpickle perhaps, is where vmrun is.
        sys.path.append(os.path.dirname(os.path.dirname(os.path.realpath(sys.modules["vmrun"].__file__ or ""))))
        if call["code"] and call["code"] not in sys.path:
            sys.path.insert(0, call["code"])
        if call["kind"] == "source":
            found: Any = import_job(call["path"])
            for part in call["name"].split("."):
                found = getattr(found, part)
        else:
            found = pickle.loads((folder / "function.pickle").read_bytes())
        function = resolve(found, call["role"])
        return caller(function, call["mode"])((folder / "argument").read_bytes())

    return run


def _debugged(run: Callable[[], Any]) -> Any:
    import pdb  # noqa: T100 -- it is what the person asked for

    try:
        return run()
    except Exception:
        pdb.post_mortem(sys.exc_info()[2])
        raise


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
