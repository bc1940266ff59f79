"""moto's server, one request after the other: its create-only writes are no such thing when two come at once.

python -m tests.support.s3_app FD

FD is a socket that listens: no other process can have taken its port meanwhile.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

_dispatch = DomainDispatcherApplication(create_backend_app)
_turn = threading.Lock()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer one request while no other is being answered."""
    with _turn:
        return list(_dispatch(environ, start_response))


if __name__ == "__main__":
    listening = socket.socket(fileno=int(sys.argv[1]))
    host, port = listening.getsockname()[:2]
    make_server(host, port, application, threaded=True, fd=listening.fileno()).serve_forever()
