"""Runs under the job's interpreter: imports a job file, finds its job, and writes its arguments and a report.

A program of its own, started by `inspector`: whatever the user's file does on import (print, exit, hang, crash)
happens here. `argv[1]` is a JSON object: `app` (directory of vmrun and cloudpickle), `path`, `shown` (the path as
the user wrote it), `name` ("" for the only job), `directory` (where to write). The report is `report.json` there,
renamed into place when it is whole; `phase` says what is being done, for when it never comes.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

#: What a job file is imported as, here and on the VM alike, so that classes defined in it travel by this name.
JOB_MODULE = "__vmrun_job__"
_TRACEBACK_MAX = 8000


class Refused(Exception):
    """The file or its job cannot be used; goes into the report."""

    def __init__(self, message: str, hint: str = "", traceback: str = "") -> None:
        super().__init__(message)
        self.document = {"kind": "error", "message": message, "hint": hint, "traceback": traceback}


def main(request: dict[str, str]) -> None:
    """Write the report that answers `request`."""
    _load_own(request["app"])
    report: dict[str, Any]
    try:
        report = _inspect(request)
    except Refused as refused:
        report = refused.document
    report["python"] = f"{sys.version_info.major}.{sys.version_info.minor}"
    _write(request["directory"], "report.json", json.dumps(report))


def _load_own(app: str) -> None:
    """Import what this program needs from `app`, whatever the job's environment has under the same names.

    Afterwards the directory stands last, as it does in the runner.
    """
    sys.path.insert(0, app)
    import vmrun.bundle.sharing
    import vmrun.job  # noqa: F401

    sys.path.remove(app)
    sys.path.append(app)


def _inspect(request: dict[str, str]) -> dict[str, Any]:
    from vmrun.bundle.arguments import pack_arguments
    from vmrun.core.errors import UsageError
    from vmrun.job import inputs_of

    directory, shown = request["directory"], request["shown"]
    _write(directory, "phase", "was still being imported")
    module = _import(request)
    found = _pick(module, request["name"], shown)
    if found is None:
        return {"kind": "script"}
    attribute, job = found
    _write(directory, "phase", f"was still giving the inputs (`over`) of job {attribute}")
    from pathlib import Path

    try:
        if job.over is None:
            packed = pack_arguments([((), {})], Path(directory), call="call")
        else:
            packed = pack_arguments(inputs_of(job), Path(directory))
    except UsageError as error:
        raise Refused(f"{shown}: job {attribute}: {error.message}", error.hint) from error
    except BaseException as error:
        message = f"{shown}: the inputs (`over`) of job {attribute} raised {_said(error)}"
        raise Refused(message, _hint(error), _trace(error, request["app"])) from error
    _write(directory, "phase", f"was still giving what job {attribute} shares (`shared`)")
    try:
        shared = _pack_shared(job, Path(directory))
    except UsageError as error:
        raise Refused(f"{shown}: job {attribute}: {error.message}", error.hint) from error
    except BaseException as error:
        message = f"{shown}: what job {attribute} shares (`shared`) raised {_said(error)}"
        raise Refused(message, _hint(error), _trace(error, request["app"])) from error
    return {
        "kind": "map",
        "name": attribute,
        "options": job.options,
        "reduce": job.reducer is not None,
        "shared": shared,
        "arguments": {
            "path": str(packed.path),
            "sha256": packed.sha256,
            "size": packed.size,
            "index": packed.index.decode(),
            "index_sha256": packed.index_sha256,
            "count": packed.count,
            "call": packed.call,
        },
    }


def _pack_shared(job: Any, directory: Any) -> tuple[str, str, int] | None:
    """Write what the job shares to a file: its path, hash and size; None if it shares nothing."""
    from vmrun.bundle.sharing import pack_shared
    from vmrun.job import shared_of

    value = shared_of(job)
    if value is None:
        return None
    packed = pack_shared(value, directory)
    path = directory / "shared.parcel"
    with path.open("xb") as file:
        file.writelines(packed)
    packed.path.unlink()
    return str(path), packed.sha256, packed.size


def _import(request: dict[str, str]) -> Any:
    import importlib.machinery
    import importlib.util

    from vmrun.core.errors import UsageError

    path, shown, app = request["path"], request["shown"], request["app"]
    # As `python job.py` does it: the script's directory first, the script the only argument.
    sys.path.insert(0, os.path.dirname(path))
    sys.argv = [path]
    loader = importlib.machinery.SourceFileLoader(JOB_MODULE, path)
    spec = importlib.util.spec_from_file_location(JOB_MODULE, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[JOB_MODULE] = module
    try:
        loader.exec_module(module)
    except UsageError as error:
        raise Refused(f"{shown}{_line(error, path)}: {error.message}", error.hint) from error
    except SystemExit as error:
        raise Refused(
            f"{shown} called exit({error.code!r}) while it was imported",
            'a job file is imported, so put what should only happen when it is run under `if __name__ == "__main__":`',
        ) from error
    except BaseException as error:
        raise Refused(f"{shown} cannot be imported: {_said(error)}", _hint(error), _trace(error, app)) from error
    return module


def _pick(module: Any, name: str, path: str) -> tuple[str, Any] | None:
    """The attribute and the job that it holds; None if there is no job and none was named."""
    from vmrun.job import Job

    jobs = _jobs(module)
    if name:
        named = getattr(module, name, None)
        if isinstance(named, Job):
            return name, named
        raise _unknown(module, name, jobs, path)
    if len(jobs) > 1:
        names = ", ".join(jobs)
        raise Refused(f"{path} has {len(jobs)} jobs: {names}", f"name one: {path}::{next(iter(jobs))}")
    return next(iter(jobs.items()), None)


def _jobs(module: Any) -> dict[str, Any]:
    """Jobs by attribute, each once. Jobs imported from elsewhere only count where the file has none of its own."""
    from vmrun.job import Job

    every = {name: value for name, value in vars(module).items() if isinstance(value, Job)}
    own = {name: value for name, value in every.items() if value.__module__ == JOB_MODULE}
    distinct: dict[int, str] = {}
    for name, value in (own or every).items():
        if getattr(value.fn, "__name__", "") == name:
            distinct[id(value)] = name
        else:
            distinct.setdefault(id(value), name)
    return {name: every[name] for name in distinct.values()}


def _unknown(module: Any, name: str, jobs: dict[str, Any], path: str) -> Refused:
    if callable(getattr(module, name, None)):
        return Refused(f"{path}: {name} is not a job", f"write @vmrun.job above it; jobs: {', '.join(jobs) or 'none'}")
    import difflib

    close = difflib.get_close_matches(name, jobs, n=3)
    if close:
        return Refused(f"{path} has no job {name}", f"did you mean {' or '.join(close)}?")
    return Refused(
        f"{path} has no job {name}",
        f"its jobs: {', '.join(jobs)}" if jobs else "write @vmrun.job above the function; there is none yet",
    )


# --- what went wrong, for the user's eyes ---


def _said(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__


#: Where the name of the package is not the name of the module, for the ones met most often.
_PACKAGES = {
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "PIL": "pillow",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}


def _hint(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        top = error.name.partition(".")[0]
        package = _PACKAGES.get(top, top)
        return f'add --with {package}, or dependencies = ["{package}"] in the `# /// script` block of the file'
    return "the traceback is that of the job file: it is imported once at submit, and then on the VM"


def _line(error: BaseException, path: str) -> str:
    """The line of the file at `path` that led to `error`."""
    line = 0
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == path:
            line = step.tb_lineno
        step = step.tb_next
    return f", line {line}" if line else ""


def _trace(error: BaseException, app: str) -> str:
    """The traceback without the frames of this program and of the import machinery; its end, where it is long."""
    import traceback

    trace = traceback.TracebackException.from_exception(error)
    for part in _chain(trace):
        kept = [frame for frame in part.stack if not _is_ours(frame.filename, app)]
        part.stack = traceback.StackSummary.from_list(kept)
    text = "".join(trace.format())
    return text if len(text) <= _TRACEBACK_MAX else f"…{text[-_TRACEBACK_MAX:]}"


def _chain(trace: Any) -> Iterator[Any]:
    """The exception and those that it came from."""
    waiting, seen = [trace], 0
    while waiting and seen < 50:
        part = waiting.pop()
        seen += 1
        yield part
        waiting.extend(inner for inner in (part.__cause__, part.__context__) if inner is not None)


def _is_ours(filename: str, app: str) -> bool:
    return filename.startswith(("<frozen ", app + os.sep)) or filename == __file__


def _write(directory: str, name: str, text: str) -> None:
    """Write a file, whole or not at all."""
    temporary = os.path.join(directory, f"{name}.new")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, os.path.join(directory, name))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    # Neither threads of the user's nor exit handlers have anything to say after the report.
    os._exit(0)
