"""Makes the environment that a lock describes, once per machine, however many ask for it and whoever dies meanwhile.

An environment lies in a directory named by its content and counts only once its marker, written last, is there.
It is built in place, because scripts in it name its path. A lock file makes builders take turns; uv inherits it, so
that a builder which died does not let a second one in while its uv still writes.

Standard library only: the agent installs with it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vmrun.core.clock import Clock, SystemClock
from vmrun.core.codec import canonical, sha256
from vmrun.core.errors import UsageError, VmrunError

from .uv import Progress, UvResult, UvRun, explain, missing_python, run_uv, uv_environment

#: Seconds for making one environment, and for waiting for somebody else who makes it.
TIMEOUT = 3600.0
_LOCK_POLL = 0.2
_PROBE_TIMEOUT = 10.0
_MARKER = ".complete"
#: Minors that are looked for when the wanted one is not there.
_MINORS = range(8, 25)


@dataclass(frozen=True, slots=True)
class InstallOptions:
    """How packages are fetched, and what may be done to get a Python."""

    #: Variables such as `UV_DEFAULT_INDEX`, in addition to this process' own.
    variables: Mapping[str, str] = field(default_factory=dict)
    #: Certificates to trust instead of the system's; "" for those.
    ca_file: str = ""
    #: Whether uv may download a Python that the machine does not have.
    python_downloads: bool = False
    #: Whether byte code is written at once: those who run the job may not write to the environment later.
    compile_bytecode: bool = True
    timeout: float = TIMEOUT
    clock: Clock = field(default_factory=SystemClock)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> InstallOptions:
        """From JSON values, as `to_data` gives them; what is missing has its default, what is unknown is ignored."""
        variables = data.get("variables") or {}
        return cls(
            variables={str(name): str(value) for name, value in variables.items()},
            ca_file=str(data.get("ca_file") or ""),
            python_downloads=bool(data.get("python_downloads", False)),
            compile_bytecode=bool(data.get("compile_bytecode", True)),
            timeout=float(data.get("timeout", TIMEOUT)),
        )

    def to_data(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "variables": dict(self.variables),
            "ca_file": self.ca_file,
            "python_downloads": self.python_downloads,
            "compile_bytecode": self.compile_bytecode,
            "timeout": self.timeout,
        }


def environment_id(lock_text: str, python: str) -> str:
    """Name of the environment that `lock_text` describes, for Python `major.minor` or an interpreter's path."""
    return sha256(canonical([python, lock_text]))[:32]


def ensure_environment(
    root: str | Path,
    lock_text: str,
    python: str,
    uv: str,
    options: InstallOptions,
    progress: Progress = lambda _line: None,
) -> Path:
    """The interpreter of the environment under `root` that `lock_text` describes, made if it is not there.

    `python` is `major.minor` or the path of the interpreter to build on, `uv` the path of the program. What uv says
    goes to `progress` line by line. Idempotent, also when it was interrupted at any point. Raises UsageError when the
    machine has no such Python or the lock cannot be installed, VmrunError when packages could not be fetched.
    """
    directory = Path(root).absolute() / environment_id(lock_text, python)
    interpreter = directory / "bin" / "python"
    if _is_complete(directory, interpreter):
        return interpreter
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _turn(directory.with_suffix(".lock"), options, progress) as descriptor:
        if not _is_complete(directory, interpreter):
            _build(directory, lock_text, python, (uv, options, progress, descriptor))
    return interpreter


def _is_complete(directory: Path, interpreter: Path) -> bool:
    """Also false for an environment whose Python was taken away since."""
    return (directory / _MARKER).is_file() and interpreter.exists()


@contextlib.contextmanager
def _turn(path: Path, options: InstallOptions, progress: Progress) -> Iterator[int]:
    """Be the only builder while inside; gives the descriptor whose copies prolong that."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = options.clock.monotonic() + options.timeout
        told = False
        while not _try_lock(descriptor):
            if options.clock.monotonic() > deadline:
                raise VmrunError(
                    f"another process has been making the environment {path.stem} for too long",
                    hint="look for a uv process that hangs on this machine, and end it",
                )
            if not told:
                progress("waiting for another process that makes the same environment")
                told = True
            options.clock.sleep(_LOCK_POLL)
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    return True


def _build(directory: Path, lock_text: str, python: str, tools: tuple[str, InstallOptions, Progress, int]) -> None:
    uv, options, progress, descriptor = tools
    shutil.rmtree(directory, ignore_errors=True)
    env = uv_environment({**os.environ, **options.variables}, ca_file=options.ca_file)
    if "HOME" not in env:
        # A service may have none, and then uv does not know where to keep what it fetched.
        env.setdefault("UV_CACHE_DIR", str(directory.parent / ".uv-cache"))
    run = UvRun(
        program=uv,
        env=env,
        cwd=str(directory.parent),
        timeout=options.timeout,
        progress=progress,
        pass_fds=(descriptor,),
        clock=options.clock,
    )
    downloads = [] if options.python_downloads else ["--no-python-downloads"]
    made = run_uv(run, ["venv", "--no-project", "--no-config", "--python", python, *downloads, str(directory)])
    if made.exit_code != 0:
        raise _no_environment(made, run)
    lock = directory / "requirements.txt"
    lock.write_text(lock_text, "utf-8")
    if _names_a_package(lock_text):
        interpreter = str(directory / "bin" / "python")
        arguments = ["pip", "install", "--no-config", "--python", interpreter, "--require-hashes", "-r", str(lock)]
        compiled = ["--compile-bytecode"] if options.compile_bytecode else []
        installed = run_uv(run, [*arguments, *compiled])
        if installed.exit_code != 0:
            raise explain(installed, "installing the job's environment")
    _mark(directory)


def _names_a_package(lock_text: str) -> bool:
    return any(line.strip() and not line.lstrip().startswith(("#", "-")) for line in lock_text.splitlines())


def _mark(directory: Path) -> None:
    """Say that the environment is whole, after all of it has reached the disk."""
    os.sync()
    with open(directory / _MARKER, "w", encoding="utf-8") as file:
        file.flush()
        os.fsync(file.fileno())


def _no_environment(made: UvResult, run: UvRun) -> VmrunError:
    missing = missing_python(made)
    if not missing:
        return explain(made, "making the job's environment")
    listed = run_uv(run, ["python", "list", "--only-installed", "--no-python-downloads", "--no-config"])
    there = sorted({line.split("-")[1] for line in listed.lines if line.startswith("cpython-")}, key=_numbers)
    return UsageError(
        f"{missing} is not on this machine, which has {', '.join(there) or 'none'}",
        hint="choose one that is there with --python, or an image that has the one you want",
    )


def _numbers(version: str) -> list[int]:
    return [int(part) if part.isdigit() else 0 for part in version.split(".")]


# --- without an environment ---


def find_interpreter(python: str, path: str | None = None) -> Path:
    """An interpreter of Python `major.minor` on this machine, searched in `path` (default: `$PATH`), tried out.

    Raises UsageError that names the ones that are there.
    """
    for name in (f"python{python}", "python3", "python"):
        found = shutil.which(name, path=path)
        if found and _version_of(found) == python:
            return Path(found)
    candidates = ("python3", *(f"python3.{minor}" for minor in _MINORS))
    programs = (shutil.which(name, path=path) for name in candidates)
    there = sorted({version for program in programs if program and (version := _version_of(program))}, key=_numbers)
    raise UsageError(
        f"Python {python} is not on this machine, which has {', '.join(there) or 'none'}",
        hint="choose one that is there with --python, or an image that has the one you want",
    )


def _version_of(program: str) -> str:
    """`major.minor` of an interpreter; "" if it does not run."""
    argv = [program, "-I", "-c", "import sys; sys.stdout.write('%d.%d' % sys.version_info[:2])"]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROBE_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("ascii", "replace") if done.returncode == 0 else ""
