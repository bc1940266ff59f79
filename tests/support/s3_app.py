"""moto's server, one request after the other: its create-only writes are no such thing when two come at once.

python -m tests.support.s3_app FD

FD is a socket that listens: no other process can have taken its port meanwhile.
"""

from __future__ import annotations

import io
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
    # All of it is here first: whoever stands still in the middle of a request, or is gone, keeps nobody else waiting.
    environ["wsgi.input"] = io.BytesIO(_body(environ))
    with _turn:
        return list(_dispatch(environ, start_response))


def _body(environ: dict[str, Any]) -> bytes:
    stream = environ["wsgi.input"]
    # In chunks it says itself where it ends.
    chunked = environ.get("wsgi.input_terminated", False)
    body: bytes = stream.read() if chunked else stream.read(int(environ.get("CONTENT_LENGTH") or 0))
    return body


if __name__ == "__main__":
    listening = socket.socket(fileno=int(sys.argv[1]))
    host, port = listening.getsockname()[:2]
    make_server(host, port, application, threaded=True, fd=listening.fileno()).serve_forever()
