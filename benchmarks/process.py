"""Drivers as processes: asked with time limits, watched for memory, and gone afterwards with all they have started."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HERE = Path(__file__).resolve().parent
#: Tells the processes of a driver from all others; vmrun hands this variable on to its workers.
MARK = "VMRUN_TEST_RUN"
#: Of the person's own environment a driver gets these.
KEPT = ("PATH", "USER", "LOGNAME", "LANG", "TZ", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "OPENBLAS_CORETYPE")
#: Nothing is sent home, and libraries use the one core that each worker has.
FIXED = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "LITHOPS_TELEMETRY": "0",
    "DO_NOT_TRACK": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # The workloads, and vmrun as it is in this checkout.
    "PYTHONPATH": os.pathsep.join((str(HERE), str(HERE.parent))),
    "PYTHONDONTWRITEBYTECODE": "1",
}
#: Seconds to end in when asked to; then until what is killed is gone.
STOP_PATIENCE, KILL_PATIENCE = 15.0, 10.0


class DriverFailed(Exception):
    """The driver answered that it failed, or died."""


class Unsupported(DriverFailed):
    """The system cannot do what it was asked to."""


class Hung(DriverFailed):
    """No answer within the limit."""


class Driver:
    """One system in a process, home and temporary directory of its own. Use it as a context."""

    def __init__(self, system: str, python: str | Path, environment: Mapping[str, str] | None = None) -> None:
        self.system = system
        self.version = ""
        self.start_seconds = 0.0
        self.mark = uuid.uuid4().hex
        # Short: sockets below it have at most 107 characters.
        self.place = Path(tempfile.mkdtemp(prefix="vmb-"))
        (self.place / "t").mkdir()
        self._replies = self.place / "replies"
        self._replies.touch()
        self._read = 0
        env = {name: os.environ[name] for name in KEPT if name in os.environ}
        env |= {"HOME": str(self.place), "TMPDIR": str(self.place / "t"), MARK: self.mark, **FIXED}
        # Lithops starts whatever is called `python`.
        env["PATH"] = os.pathsep.join((str(Path(python).parent), env.get("PATH", os.defpath)))
        env |= environment or {}
        self.log = self.place / "log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(python), "-B", str(HERE / "driver.py"), system, str(self._replies)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=env,
                cwd=self.place,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self, workers: int, limit: float = 90.0, **options: Any) -> None:
        """Have the system start. Raises DriverFailed."""
        reply = self.ask("start", limit, workers=workers, options=options)
        self.start_seconds, self.version = reply["seconds"], reply["version"]

    def ask(self, op: str, limit: float, /, **request: Any) -> dict[str, Any]:
        """The reply to a request. Raises Hung, Unsupported, DriverFailed."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"op": op, **request}).encode() + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError) as error:
            raise DriverFailed(f"{self.system} is gone: {self.last_words()}") from error
        deadline = time.monotonic() + limit
        while (line := self._reply()) is None:
            if self._process.poll() is not None and (line := self._reply()) is None:
                raise DriverFailed(f"{self.system} ended with {self._process.returncode}: {self.last_words()}")
            if time.monotonic() > deadline:
                raise Hung(f"{self.system} did not answer {op} within {limit:.0f} s")
            time.sleep(0.005)  # noqa: TID251  the driver measures; this only waits
        reply: dict[str, Any] = json.loads(line)
        if not reply["ok"]:
            if "unsupported" in reply:
                raise Unsupported(reply["unsupported"])
            raise DriverFailed(f"{self.system}: {reply['error']}")
        return reply

    def _reply(self) -> str | None:
        with self._replies.open("rb") as file:
            file.seek(self._read)
            line = file.readline()
        if not line.endswith(b"\n"):
            return None
        self._read += len(line)
        return line.decode()

    def last_words(self) -> str:
        """The end of what it wrote; nothing once it is closed."""
        try:
            return self.log.read_bytes()[-2000:].decode(errors="replace").strip()
        except OSError:
            return ""

    def processes(self) -> list[int]:
        """Everything that belongs to it and runs, the driver included."""
        return [pid for pid in running() if _belongs(pid, f"{MARK}={self.mark}".encode(), str(self.place).encode())]

    @property
    def pid(self) -> int:
        """The driver's own process."""
        return self._process.pid

    def close(self, *, ask: bool = True) -> None:
        """Stop it, kill what is left, remove its directory. Idempotent. `ask` it to end, unless that is of no use."""
        if ask and self._process.poll() is None:
            with contextlib.suppress(DriverFailed):
                self.ask("stop", STOP_PATIENCE)
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        deadline = time.monotonic() + KILL_PATIENCE
        while (left := self.processes()) and time.monotonic() < deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            self._process.poll()
            time.sleep(0.02)  # noqa: TID251  until the kernel has ended them
        self._process.wait(KILL_PATIENCE)
        shutil.rmtree(self.place, ignore_errors=True)

    @contextlib.contextmanager
    def memory(self, every: float = 0.1) -> Iterator[list[dict[int, int]]]:
        """Samples of what each of its processes has in memory (proportional set size, bytes), while the block runs."""
        samples: list[dict[int, int]] = []
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(every):
                samples.append({pid: size for pid in self.processes() if (size := proportional_bytes(pid))})

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield samples
        finally:
            ended.set()
            thread.join()


def running() -> list[int]:
    """Process ids of all that run."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def _belongs(pid: int, mark: bytes, place: bytes) -> bool:
    try:
        if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
            return state not in (b"Z", b"X")
        return place in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False  # gone, or not ours to look at


def proportional_bytes(pid: int) -> int:
    """Proportional set size: what a process shares with others counts in parts. 0 for one that is gone."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0
