"""Asks the cloud, from inside a spot machine, whether it will take the machine back.

In a thread of its own, so that the news is there within seconds whatever the work is at. Nobody but the agent may ask:
the job's user has no way to the metadata service.
"""

from __future__ import annotations

import logging
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping

from vmrun.core.notices import Notices, Sign

log = logging.getLogger(__name__)

#: Seconds for one question. It is asked of the machine's own host.
TIMEOUT = 3.0
#: Bytes of an answer that are looked at.
ANSWER_MAX = 4096
#: Answers in a row that failed before it is said; again after as many.
SILENT = 60
#: Straight there, whatever proxies the machine has.
_SEND = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

#: What a question gets: the answer's beginning, None for no such thing; raises OSError.
Ask = Callable[[str, str, Mapping[str, str]], str | None]


def ask(method: str, url: str, headers: Mapping[str, str]) -> str | None:
    """The beginning of an answer; None for 404. Raises OSError, of which HTTPError is one."""
    request = urllib.request.Request(url, headers=dict(headers), method=method)  # noqa: S310 - from the driver
    try:
        with _SEND(request, timeout=TIMEOUT) as answer:
            return str(answer.read(ANSWER_MAX).decode("utf-8", "replace"))
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 404:
                return None
            raise


class Listener:
    """Asks until stopped, or until the end is certain. `on_sign` is called once for each sign, in the thread."""

    def __init__(self, notices: Notices, on_sign: Callable[[Sign], None], ask: Ask = ask) -> None:
        self._notices = notices
        self._on_sign = on_sign
        self._ask = ask
        self._left = list(notices.signs)
        self._token = ""
        self._silent = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notices", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more. Does not wait: a question may take seconds, and its answer does not matter any more."""
        self._over.set()

    def look(self) -> None:
        """Ask once for each sign that was not seen yet."""
        for sign in list(self._left):
            try:
                said = self._question(sign.path)
            except (OSError, ValueError) as error:
                self._failed(error)
                return
            self._silent = 0
            if said is not None and re.match(sign.says, said.lstrip()):
                self._left.remove(sign)
                log.warning("event=notice why=%r certain=%s answer=%r", sign.why, sign.certain, said[:200])
                self._on_sign(sign)
                if sign.certain:
                    self._over.set()
                    return

    def _question(self, path: str) -> str | None:
        notices = self._notices
        headers = dict(notices.headers)
        if notices.session_path:
            if not self._token:
                url = notices.endpoint + notices.session_path
                self._token = (self._ask("PUT", url, notices.session_headers) or "").strip()
            headers[notices.session_header] = self._token
        return self._ask("GET", notices.endpoint + path, headers)

    def _failed(self, error: Exception) -> None:
        # A token ends at some time; another one is asked for.
        self._token = ""
        self._silent += 1
        if self._silent % SILENT == 1:
            log.warning("event=no-notices error=%r", error)

    def _run(self) -> None:
        while not self._over.is_set():
            self.look()
            self._over.wait(self._notices.every)
