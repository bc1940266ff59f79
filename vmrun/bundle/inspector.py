"""Asks a job file what it is: a plain script, or a job over which inputs.

The file is imported in a process of its own, under the job's interpreter: its dependencies may not be installed
here, and nothing that it does on import may harm the client.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from vmrun.core.clock import Clock
from vmrun.core.errors import UsageError, VmrunError
from vmrun.core.model import Payload
from vmrun.core.units import format_duration
from vmrun.store.files import FilePieces

from .arguments import PackedArguments
from .script import Script

#: Seconds that importing the file and walking its inputs may take.
TIMEOUT = 600.0
#: Bytes of what the file prints on import that are kept: its end.
OUTPUT_MAX = 64 * 1024
#: Seconds between looks at the clock.
_POLL = 0.1
#: Seconds to wait for the last of the output once the process is gone.
_DRAIN_TIMEOUT = 2.0
#: Lines of output that stand in an error.
_SHOWN_LINES = 20


@dataclass(frozen=True, slots=True)
class JobInterpreter:
    """What job files are imported with."""

    #: The interpreter's executable.
    python: Path
    #: A directory that holds vmrun and cloudpickle for it, and nothing else (`artefact.app.app_directory`).
    app: Path
    #: The process' environment; None: this one's.
    env: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a job file turned out to be."""

    #: `map`: a job of `arguments.count` tasks; `script`: to be run as `__main__`.
    kind: str
    #: Attribute of the file that holds the job.
    name: str = ""
    #: What stands in `@vmrun.job(...)`, checked: sizes in bytes, durations in seconds.
    options: dict[str, Any] = field(default_factory=dict)
    reduce: bool = False
    #: None for a script.
    arguments: PackedArguments | None = None
    #: What the job shares, and its bytes; None for nothing.
    shared: tuple[Payload, FilePieces] | None = None
    #: Python `major.minor` that pickled the arguments; "" for a script that was not imported.
    python: str = ""
    #: What the file printed on import.
    output: str = ""


def inspect_job(
    script: Script,
    name: str = "",
    *,
    interpreter: JobInterpreter,
    directory: Path,
    clock: Clock,
    timeout: float = TIMEOUT,
) -> Inspection:
    """Find the job called `name` (a module-level name; "" for the only one) and write its arguments to `directory`.

    A file that does not use `vmrun.job` is a script and is not run at all. `directory` is an empty one of
    the caller's. Raises UsageError, with the file's own traceback where there is one.
    """
    if not script.uses_job and not name:
        return Inspection("script")
    request = {
        "app": str(interpreter.app),
        "path": str(script.path.absolute()),
        "shown": str(script.path),
        "name": name,
        "directory": str(directory.absolute()),
    }
    main = interpreter.app / "vmrun" / "bundle" / "inspect_main.py"
    # No user site, no directory of this program in front of the path, no caches in the user's tree.
    argv = [str(interpreter.python), "-s", "-P", "-B", str(main), json.dumps(request)]
    exit_code, output = _run(argv, interpreter.env, clock, timeout)
    report = _read_report(directory)
    if report is None:
        raise _no_report(script.path, directory, exit_code, output, timeout)
    if report["kind"] == "error":
        trace = f"\n\n{report['traceback'].rstrip()}" if report["traceback"] else ""
        raise UsageError(f"{report['message']}{trace}", hint=report["hint"])
    return _inspection(report, output)


def _inspection(report: dict[str, Any], output: str) -> Inspection:
    if report["kind"] == "script":
        return Inspection("script", python=report["python"], output=output)
    found = report["arguments"]
    arguments = PackedArguments(
        Path(found["path"]),
        found["sha256"],
        found["size"],
        found["index"].encode(),
        found["index_sha256"],
        found["count"],
        found["call"],
    )
    shared = None
    if report["shared"] is not None:
        path, sha256, size = report["shared"]
        shared = Payload(sha256, size), FilePieces(path)
    return Inspection(
        "map", report["name"], report["options"], report["reduce"], arguments, shared, report["python"], output
    )


def _read_report(directory: Path) -> dict[str, Any] | None:
    try:
        report: dict[str, Any] = json.loads((directory / "report.json").read_text("utf-8"))
    except FileNotFoundError:
        return None
    return report


def _no_report(path: Path, directory: Path, exit_code: int | None, output: str, timeout: float) -> VmrunError:
    """The error for a process that ended, or was ended, before it had an answer."""
    shown = "\n".join(output.splitlines()[-_SHOWN_LINES:])
    tail = f"\n\n{shown}" if shown else ""
    if exit_code is None:
        try:
            phase = (directory / "phase").read_text("utf-8")
        except FileNotFoundError:
            phase = "had not started"
        return UsageError(
            f"{path} {phase} after {format_duration(timeout)}{tail}",
            hint="the top level of a job file, and its `over`, only say what is to be done; work belongs in tasks",
        )
    how = f"was killed by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"ended with exit code {exit_code}"
    return UsageError(
        f"the process that imported {path} {how}{tail}",
        hint='put what should only happen when the file is run under `if __name__ == "__main__":`',
    )


def _run(argv: list[str], env: Mapping[str, str] | None, clock: Clock, timeout: float) -> tuple[int | None, str]:
    """Exit code (None when it took too long) and the end of what was printed. Nothing of it outlives the call."""
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            start_new_session=True,
        )
    except OSError as error:
        raise UsageError(
            f"{argv[0]}: {error.strerror or error}", hint="is it a Python interpreter? Choose another with --python"
        ) from error
    assert process.stdout is not None
    tail = _Tail(process.stdout)
    tail.start()
    ended = threading.Event()
    threading.Thread(target=_await, args=(process, ended), daemon=True).start()
    deadline = clock.monotonic() + timeout
    in_time = False
    try:
        while not in_time and clock.monotonic() < deadline:
            in_time = ended.wait(_POLL)
    finally:
        # Also what the file started and left behind.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        exit_code = process.wait()
        tail.join(_DRAIN_TIMEOUT)
    return exit_code if in_time else None, tail.text()


def _await(process: subprocess.Popen[bytes], ended: threading.Event) -> None:
    process.wait()
    ended.set()


class _Tail(threading.Thread):
    """Reads a stream to its end and keeps the last of it."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self._stream = stream
        self._kept = bytearray()

    def run(self) -> None:
        """Until the stream ends; closes it."""
        with self._stream:
            while piece := os.read(self._stream.fileno(), OUTPUT_MAX):
                self._kept += piece
                del self._kept[:-OUTPUT_MAX]

    def text(self) -> str:
        """What was kept; `replace` for bytes that are no text."""
        return bytes(self._kept).decode("utf-8", "replace")
