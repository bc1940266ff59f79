"""Runs uv, shows what it says line by line, and says what its errors mean.

Standard library only: the agent installs with it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from vmrun.core.clock import Clock, SystemClock
from vmrun.core.errors import UsageError, VmrunError

Progress = Callable[[str], None]

#: Lines of uv's output that are kept, and that stand in an error.
_KEPT, _SHOWN = 400, 25
#: Seconds to wait for the reader of a program that is gone.
_DRAIN_TIMEOUT = 5.0
#: Variables that say where packages come from and how to get there; all others of uv's would change the result.
_INDEX_VARIABLES = re.compile(
    r"UV_(?:(?:DEFAULT_|EXTRA_)?INDEX(?:_URL|_STRATEGY)?|INDEX_\w+|FIND_LINKS|NO_INDEX|OFFLINE|HTTP_\w+|INSECURE_HOST"
    r"|KEYRING_PROVIDER|NATIVE_TLS|SYSTEM_CERTS|CACHE_DIR|CONCURRENT_\w+|LINK_MODE|PYTHON_INSTALL_DIR|PYTHON_\w*MIRROR)"
    r"|SSL_CERT_FILE|SSL_CERT_DIR|SSL_CLIENT_CERT|(?i:(?:https?|all|no)_proxy)|NETRC"
)
_ADDRESS_VARIABLES = re.compile(r"UV_(?:(?:DEFAULT_|EXTRA_)?INDEX(?:_URL)?|FIND_LINKS)")
_PUBLIC_ADDRESS = re.compile(r"(?:[\w-]+=)?https?://")
_SECRET = re.compile(r"://[^/\s]*@")
#: What a program needs of its surroundings at all.
_PLAIN_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")


def find_uv() -> str:
    """Path of the uv program on this machine. Raises VmrunError when there is none."""
    with contextlib.suppress(ImportError, FileNotFoundError):
        import uv

        return uv.find_uv_bin()
    found = shutil.which("uv")
    if found is None:
        raise VmrunError("uv is not installed", hint="pip install uv")
    return found


def uv_environment(variables: Mapping[str, str], *, ca_file: str = "") -> dict[str, str]:
    """What uv is given of the environment `variables`: the way to the packages, nothing that changes the choice.

    `ca_file`: certificates to trust instead of the system's.
    """
    env = {
        name: value for name, value in variables.items() if name in _PLAIN_VARIABLES or _INDEX_VARIABLES.fullmatch(name)
    }
    if ca_file:
        env["SSL_CERT_FILE"] = ca_file
    return env


def index_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Those of `variables` that name package indexes any machine can reach, and hold nothing secret."""
    return {
        name: value
        for name, value in variables.items()
        if _ADDRESS_VARIABLES.fullmatch(name) and _PUBLIC_ADDRESS.match(value) and not _SECRET.search(value)
    }


def private_index_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Those of `variables` that name package indexes, and are not to be known on other machines."""
    public = index_variables(variables)
    return {
        name: value for name, value in variables.items() if _ADDRESS_VARIABLES.fullmatch(name) and name not in public
    }


@dataclass(frozen=True, slots=True)
class UvRun:
    """How to run uv."""

    #: Path of the program.
    program: str
    #: The process' whole environment.
    env: Mapping[str, str]
    #: Where it runs; project files are looked for there and above.
    cwd: str
    #: Seconds until it is killed.
    timeout: float
    progress: Progress
    #: Descriptors that uv and what it starts keep open.
    pass_fds: tuple[int, ...] = ()
    clock: Clock = field(default_factory=SystemClock)


@dataclass(frozen=True, slots=True)
class UvResult:
    """How a run of uv ended."""

    #: None: it took too long and was killed.
    exit_code: int | None
    #: The last lines it wrote.
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """The last lines, as one text."""
        return "\n".join(self.lines)


def run_uv(run: UvRun, arguments: Sequence[str]) -> UvResult:
    """Run uv with `arguments`; each line it writes goes to `run.progress` as it comes. Nothing outlives the call."""
    argv = [run.program, "--color", "never", "--no-progress", *arguments]
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(run.env),
            cwd=run.cwd,
            pass_fds=run.pass_fds,
            start_new_session=True,
        )
    except OSError as error:
        raise VmrunError(f"{run.program}: {error.strerror or error}", hint="is uv there, and executable?") from error
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
    reader.start()
    kept: deque[str] = deque(maxlen=_KEPT)
    finished = False
    try:
        finished = _deliver(run, lines, kept)
    finally:
        if not finished:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        exit_code = process.wait()
        reader.join(_DRAIN_TIMEOUT)
    return UvResult(exit_code if finished else None, tuple(kept))


def _read(process: subprocess.Popen[bytes], lines: queue.SimpleQueue[str | None]) -> None:
    assert process.stdout is not None
    with process.stdout as stream:
        for line in stream:
            lines.put(line.decode("utf-8", "replace").rstrip())
    process.wait()
    lines.put(None)


def _deliver(run: UvRun, lines: queue.SimpleQueue[str | None], kept: deque[str]) -> bool:
    """Pass lines on until the program has ended; False when its time is up first."""
    deadline = run.clock.monotonic() + run.timeout
    while True:
        try:
            line = lines.get(timeout=max(0.0, deadline - run.clock.monotonic()))
        except queue.Empty:
            return False
        if line is None:
            return True
        if line.strip():
            kept.append(line)
            run.progress(line)


# --- what its errors mean ---

_NOT_FOUND = re.compile(r"Because (\S+) was not found in the package registry")
_NO_PYTHON = re.compile(r"No interpreter found for (Python \S+)")
_NETWORK = re.compile(
    r"Failed to fetch|error sending request|dns error|tcp connect error|timed out|Connection (?:refused|reset)"
)
_CERTIFICATE = re.compile(r"invalid peer certificate|UnknownIssuer|certificate verify failed")
_REFUSED = re.compile(r"\b(?:401|403)\b.*(?:Unauthorized|Forbidden)|status code (?:401|403)")
_WRONG = re.compile(r"No solution found|Couldn't parse|Failed to parse|[Ff]ailed to build|Expected one of")


def explain(result: UvResult, doing: str) -> VmrunError:
    """The error for a run of uv that failed while `doing` something, with what uv said and what to do next."""
    text = result.text
    tail = "\n".join(result.lines[-_SHOWN:])
    if result.exit_code is None:
        return VmrunError(f"{doing} took too long; uv said:\n{tail}", hint="is the index slow? Try again")
    missing = _NOT_FOUND.search(text)
    if missing:
        return UsageError(
            f"{doing}: there is no package {missing[1]}\n{tail}",
            hint="check the name; a package of a private index needs that index: UV_INDEX, or --index-url in a "
            "requirements file",
        )
    if _CERTIFICATE.search(text):
        return VmrunError(
            f"{doing}: the package index shows a certificate that is not trusted\n{tail}",
            hint="behind a proxy, set SSL_CERT_FILE to the file of its certificate authority",
        )
    if _REFUSED.search(text):
        return UsageError(
            f"{doing}: the package index refused\n{tail}", hint="check the index' address and credentials"
        )
    if _NETWORK.search(text):
        return VmrunError(
            f"{doing}: the package index cannot be reached\n{tail}",
            hint="check the network and the proxy settings; UV_DEFAULT_INDEX names another index",
        )
    if _WRONG.search(text):
        return UsageError(f"{doing}: the requirements cannot be met\n{tail}", hint="change them, or --python")
    return VmrunError(f"{doing}: uv ended with exit code {result.exit_code}\n{tail}", hint="see uv's message above")


def missing_python(result: UvResult) -> str:
    """Which Python uv did not find, such as `Python 3.14`; "" if that was not the trouble."""
    match = _NO_PYTHON.search(result.text)
    return match[1] if match else ""
