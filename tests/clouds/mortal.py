"""Clients in processes of their own, which a double kills at a call of its choice; and a clock that all of them share.

`python -m tests.clouds.mortal` is where they are born: it has the SDKs loaded, and forks a client for each line that it
reads, so that a client costs milliseconds.
"""

from __future__ import annotations

import contextlib
import functools
import json
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import boto3
from botocore.loaders import JSONFileLoader

from tests.clouds.control import PREFIX
from tests.clouds.double import Double
from tests.clouds.paper import PAPERS, PaperWayIn
from tests.clouds.server import Answer, Cut, Reply, Request
from tests.support.shell import PATIENCE
from vmrun.client import Client
from vmrun.core.clock import Clock
from vmrun.fleet import attempt
from vmrun.fleet.order import StoreAccess
from vmrun.settings import load_settings
from vmrun.store.opening import open_store
from vmrun.store.options import StoreOptions
from vmrun.store.retrying import RetryingStore
from vmrun.submit.request import SubmitRequest
from vmrun.wiring import STORE_BUDGET

#: The same job, whoever submits it.
KEY = "the-only-one"
#: Seconds that a VM may live at most.
LIFETIME = 7200.0
#: Where machines are told that the store is.
STORE = "s3://results/here"


class SharedClock:
    """A clock that passes only in `sleep`, for all processes that have its file."""

    def __init__(self, path: Path, start: float | None = None) -> None:
        if start is not None:
            path.write_bytes(struct.pack("d", start))
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 8)

    def now(self) -> float:
        return float(struct.unpack("d", self._shared[:8])[0])

    def monotonic(self) -> float:
        return self.now()

    def sleep(self, seconds: float) -> None:
        self._shared[:8] = struct.pack("d", self.now() + seconds)


@dataclass(frozen=True)
class Deployment:
    """One deployment on one cloud of paper: all that a process needs in order to be its client."""

    cloud: str
    #: Of its own: configuration, store, everything.
    folder: str
    #: The file of the clock.
    clock: str
    #: The driver's table.
    table: dict[str, Any]
    environment: dict[str, str]
    #: The phase in which its client kills itself; "": in none.
    dies: str = ""
    #: Seconds for which a VM is to stay warm.
    keep_warm: float = 0.0

    def client(self, clock: Clock, seed: int) -> Client:
        """A client that knows nothing but what store and cloud tell."""
        environ = {f"VMRUN_{kind}_DIR": f"{self.folder}/{kind.lower()}" for kind in ("CONFIG", "STATE", "CACHE")}
        values = {"store.url": STORE, **{f"{self.cloud}.{key}": value for key, value in self.table.items()}}
        rng = random.Random(seed)
        client = Client(load_settings(values, environ=environ, cwd=Path(self.folder)), clock, rng)
        # What lies in object storage lies in a directory here: machines of paper do not look.
        store = open_store(f"file://{self.folder}/store", StoreOptions(fsync=False))
        client._wiring.blobs = RetryingStore(store, clock, rng, STORE_BUDGET)
        # And nobody asks the service of that name on the internet what time it is.
        client._wiring.store_time = clock.now  # type: ignore[method-assign]
        client._wiring.store_access = lambda on, lifetime: StoreAccess(STORE)  # type: ignore[method-assign]
        return client

    def request(self) -> SubmitRequest:
        """The job."""
        kind = PAPERS[self.cloud].instance_type
        warm = self.keep_warm or None
        return SubmitRequest(
            argv=("true",),
            on=self.cloud,
            instance_type=kind,
            idempotency_key=KEY,
            keep_warm=warm,
            max_lifetime=LIFETIME,
        )


# --- the double's side ---


class Killer:
    """Between a double's server and what answers: counts a client's calls, and kills it at one of them."""

    def __init__(self, double: Double) -> None:
        self._http = double._server._http  # type: ignore[attr-defined]
        self._answer: Answer = self._http.answer
        self._http.answer = self
        self._end: Callable[[], None] = lambda: None
        self._at, self._done = 0, False
        #: Calls since the last `aim`.
        self.calls = 0

    def aim(self, at: int, end: Callable[[], None], *, done: bool) -> None:
        """Call `end` at call number `at` from now, counted from 1, before it is done or, with `done`, after; 0: never.

        Its answer is lost in either case.
        """
        self._at, self._end, self._done, self.calls = at, end, done, 0

    def __call__(self, request: Request) -> Reply:
        if request.path.startswith(PREFIX):
            return self._answer(request)
        self.calls += 1
        if self.calls != self._at:
            return self._answer(request)
        if self._done:
            with contextlib.suppress(Cut):
                self._answer(request)
        self._end()
        raise Cut


class Nursery:
    """The process in which clients are born."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.clouds.mortal"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def submit(self, deployment: Deployment, prepare: Callable[[int], None]) -> int:
        """Let a client submit the deployment's job; how it ended: its exit code, or minus the signal.

        `prepare` is given its process's id before it begins.
        """
        prepare(self._ask(json.dumps(asdict(deployment))))
        return self._ask("go")

    def _ask(self, line: str) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE)
        self._process.stdout.close()


def kill(process: int) -> None:
    """SIGKILL."""
    os.kill(process, signal.SIGKILL)


# --- the clients' side ---


def die_in(phase: str) -> None:
    """Have this process make machines ready without SSH, and kill itself when it gets one so far."""

    def end(*_: object) -> None:
        kill(os.getpid())

    class WayIn(PaperWayIn):
        def reached(self) -> None:
            if phase == "ssh":
                end()

        def make_ready(self, *given: Any) -> None:
            if phase == "created":
                end()
            super().make_ready(*given)
            if phase == "ready":
                end()

    if phase == "intent":
        # The machine is there, and nobody wrote down that it is.
        attempt.Attempt._note = end  # type: ignore[assignment]
    attempt._way_in = lambda transport: WayIn  # type: ignore[assignment]


def _live(deployment: Deployment) -> None:
    """A client's whole life."""
    os.environ.update(deployment.environment)
    die_in(deployment.dies)
    client = deployment.client(SharedClock(Path(deployment.clock)), os.getpid())
    client.submit(deployment.request())


def _born(deployment: Deployment, read: int) -> None:
    code = 1
    try:
        os.read(read, 1)
        _live(deployment)
        code = 0
    except BaseException:
        Path(deployment.folder, "error.txt").write_text(traceback.format_exc())
    finally:
        os._exit(code)


def read_once(patch: Callable[[object, str, object], None]) -> None:
    """Have boto3 read its own descriptions of services once in a process: they are most of what a client costs.

    `patch` sets an attribute.
    """
    patch(JSONFileLoader, "load_file", functools.cache(JSONFileLoader.load_file))


def _load() -> None:
    """What every client would load by itself."""
    for name in ("paramiko", *(f"vmrun.provisioners.{cloud}.driver" for cloud in PAPERS)):
        import_module(name)
    read_once(setattr)
    session = boto3.session.Session()
    for service in ("ec2", "ssm", "sts"):
        session.client(service, region_name="us-east-1")


def main() -> None:
    """Fork a client for each deployment that is read; tell its id, and, after the next line, its end."""
    _load()
    for line in sys.stdin:
        deployment = Deployment(**json.loads(line))
        read, write = os.pipe()
        process = os.fork()
        if process == 0:
            _born(deployment, read)
        print(process, flush=True)
        sys.stdin.readline()
        os.write(write, b"!")
        _, status = os.waitpid(process, 0)
        os.close(read)
        os.close(write)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
