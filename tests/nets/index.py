"""A package index that serves this computer at once, and keeps machines waiting until it is told otherwise."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from tests.clouds.server import Reply, Request, Server
from tests.unit.environment.wheels import make_wheel

PACKAGE = "netspackage"
#: Seconds after which a machine is not kept waiting any longer, whatever happens.
_PATIENCE = 300.0


class Index:
    """On the bridge: what asks for the package gets it, until `hold`; then it waits, and is refused it in the end."""

    def __init__(self, host: str, folder: Path) -> None:
        make_wheel(folder, PACKAGE)
        (self._wheel,) = folder.glob("*.whl")
        self._told: Callable[[], None] | None = None
        self._released = threading.Event()
        self._server = Server(self._answer, host)
        self.url = f"{self._server.endpoint}/simple"

    def hold(self, told: Callable[[], None]) -> None:
        """From now on keep waiting whoever asks for the package; `told` is called each time."""
        self._told = told

    def let_go(self) -> None:
        """Refuse it to all who wait, and to those to come."""
        self._released.set()

    def close(self) -> None:
        """End the server."""
        self._released.set()
        self._server.close()

    def _answer(self, request: Request) -> Reply:
        if request.path.rstrip("/").endswith(f"/simple/{PACKAGE}"):
            link = f'<a href="/files/{self._wheel.name}">{self._wheel.name}</a>'
            return Reply(200, link.encode(), {"Content-Type": "text/html"})
        if not request.path.endswith(".whl"):
            return Reply(404)
        if self._told is not None:
            self._told()
            self._released.wait(_PATIENCE)
            return Reply(404)
        return Reply(200, self._wheel.read_bytes(), {"Content-Type": "application/octet-stream"})
