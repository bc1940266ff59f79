"""An HTTP server for doubles: many requests at once, and connections that can be cut in the middle."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import sys
import threading
import traceback
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: Seconds after which a connection on which nothing comes is closed.
_IDLE = 120.0


class Cut(Exception):
    """Raised by what answers: the connection ends here, without an answer.

    With `reset` the other side sees an error of the connection, not its end: some clients send a request again by
    themselves when a connection that was kept open ends, since it may have been over before the request came.
    """

    def __init__(self, *, reset: bool = False) -> None:
        super().__init__("reset" if reset else "end")
        self.reset = reset


@dataclass(frozen=True)
class Request:
    """What came in."""

    method: str
    #: Without the query, as it came: still percent-encoded.
    path: str
    #: Each parameter's values in order, decoded; empty ones too.
    query: Mapping[str, list[str]]
    #: By name in lower case.
    headers: Mapping[str, str]
    body: bytes
    #: Path and query as they came.
    target: str
    #: The address that asks.
    client: str = ""

    def parameter(self, name: str, default: str = "") -> str:
        """The first value of a parameter of the query."""
        return self.query.get(name, [default])[0]

    def json(self) -> Any:
        """The body as JSON; None when there is none. ValueError when it is something else."""
        return json.loads(self.body) if self.body else None


@dataclass(frozen=True)
class Reply:
    """What goes out."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def json_reply(status: int, value: object, **headers: str) -> Reply:
    """A reply in JSON."""
    body = json.dumps(value).encode()
    return Reply(status, body, {"Content-Type": "application/json", **headers})


Answer = Callable[[Request], Reply]


class Server:
    """Answers on an address of this machine until it is closed.

    An exception of `answer` other than Cut is a fault of the double, not of the cloud that it plays: the caller gets
    status 500, and `close` raises it, so that no test takes it for an answer.
    """

    def __init__(self, answer: Answer, host: str = "127.0.0.1", port: int = 0) -> None:
        self.failures: list[str] = []
        self._http = _Http((host, port), answer, self.failures)
        address, number = self._http.server_address[:2]
        self.endpoint = f"http://{address!s}:{number}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), name=self.endpoint, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer no more; open connections are cut. Raises what went wrong in the double itself, if anything did."""
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
        self._http.cut_all()
        assert not self.failures, "the double itself failed:\n" + "\n".join(self.failures)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], answer: Answer, failures: list[str]) -> None:
        super().__init__(address, _Handler)
        self.answer = answer
        self.failures = failures
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def server_bind(self) -> None:
        """Without asking the resolver for this machine's name, which may take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._open.discard(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is its own affair."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            self.failures.append(traceback.format_exc())

    def cut_all(self) -> None:
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE
    #: Headers and body in one segment, so that no answer waits for the other side's delayed acknowledgement.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Http

    def _serve(self) -> None:
        request = self._request()
        try:
            reply = self.server.answer(request)
        except Cut as cut:
            self._cut(reset=cut.reset)
            return
        except Exception:
            told = traceback.format_exc()
            self.server.failures.append(f"{request.method} {request.target}\n{told}")
            reply = Reply(500, told.encode(), {"Content-Type": "text/plain"})
        self._send(reply)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = _serve

    def _cut(self, *, reset: bool) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            if reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                os.close(self.connection.detach())
            else:
                self.connection.shutdown(socket.SHUT_RDWR)

    def _request(self) -> Request:
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        return Request(
            method=self.command,
            path=path,
            query=urllib.parse.parse_qs(query, keep_blank_values=True),
            headers=headers,
            body=self._body(headers),
            target=self.path,
            client=str(self.client_address[0]),
        )

    def _body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(headers.get("content-length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers
        return b"".join(parts)

    def _send(self, reply: Reply) -> None:
        self.send_response_only(reply.status)
        for name, value in reply.headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        if reply.status not in (204, 304):
            length = len(reply.body)
            # An answer to HEAD tells the length of what GET would bring.
            if self.command == "HEAD":
                length = int({n.lower(): v for n, v in reply.headers.items()}.get("content-length", length))
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD" and reply.status not in (204, 304):
            self.wfile.write(reply.body)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a double keeps its own record of calls."""
