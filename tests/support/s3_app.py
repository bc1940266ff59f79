"""moto's server, one request after the other: its create-only writes are no such thing when two come at once.

python -m tests.support.s3_app HOST PORT
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

_dispatch = DomainDispatcherApplication(create_backend_app)
_turn = threading.Lock()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer one request while no other is being answered."""
    with _turn:
        return list(_dispatch(environ, start_response))


if __name__ == "__main__":
    run_simple(sys.argv[1], int(sys.argv[2]), application, threaded=True)
