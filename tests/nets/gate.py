"""One client's way to the store: it knows how far the client is, and is where the client dies."""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.clouds.server import Cut, Reply, Request, Server
from tests.support.s3 import BUCKET

_INDEX = re.compile(r"PUT index/vms/(\w+)")


@dataclass(frozen=True)
class Step:
    """What happens at the first request that says `METHOD KEY`: before the store sees it, or after it answered."""

    pattern: str
    act: Callable[[], None]
    after: bool = False
    #: The client is killed by `act`: it gets no answer, and nothing more of it reaches the store.
    last: bool = True


class Gate:
    """`endpoint` leads to the store until the client's last step."""

    def __init__(self, store: str, steps: list[Step]) -> None:
        target = urlsplit(store)
        self._store = (str(target.hostname), int(target.port or 80))
        self.steps = list(steps)
        self._lock = threading.Lock()
        self._over = threading.Event()
        #: The VM that the client made.
        self.vm = ""
        self._server = Server(self._answer)
        self.endpoint = self._server.endpoint

    def shut(self) -> None:
        """Nothing passes any more."""
        self._over.set()

    def close(self) -> None:
        """End the server."""
        self._over.set()
        self._server.close()

    def _answer(self, request: Request) -> Reply:
        if self._over.is_set():
            raise Cut
        key = request.path.removeprefix(f"/{BUCKET}/").removeprefix("deployment/")
        what = f"{request.method} {key}"
        if match := _INDEX.fullmatch(what):
            self.vm = match[1]
        self._pass(what, after=False)
        reply = self._forward(request)
        if reply.status < 300:
            self._pass(what, after=True)
        return reply

    def _pass(self, what: str, *, after: bool) -> None:
        with self._lock:
            due = [step for step in self.steps if step.after is after and re.fullmatch(step.pattern, what)]
            self.steps = [step for step in self.steps if step not in due]
        for step in due:
            if step.last:
                self._over.set()
            step.act()
        if self._over.is_set():
            raise Cut

    def _forward(self, request: Request) -> Reply:
        connection = http.client.HTTPConnection(*self._store, timeout=120)
        try:
            headers = {name: value for name, value in request.headers.items() if name not in _HOP_BY_HOP}
            connection.request(request.method, request.target, request.body or None, headers)
            answer = connection.getresponse()
            return Reply(answer.status, answer.read(), dict(answer.getheaders()))
        finally:
            connection.close()


_HOP_BY_HOP = ("connection", "content-length", "transfer-encoding", "expect")
