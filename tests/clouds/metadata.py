"""What machines of a double may ask of their metadata service: whether they will be taken back.

It answers at an address that machines reach, and knows who asks by the address that they ask from, as the real ones do.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from .server import Reply, Request, Server

#: By the address that asks: the machine's identifier; "" for nobody's.
Who = Callable[[str], str]


class Metadata:
    """One cloud's service for its machines. `answer` is the cloud's own; here is what all have in common."""

    def __init__(self, who: Who, host: str) -> None:
        self._who = who
        self._lock = threading.Lock()
        #: Identifiers of machines that are told to be taken back, and how: `certain` or `likely`.
        self._announced: dict[str, str] = {}
        #: Identifiers of those that were told so.
        self.told: set[str] = set()
        self._server = Server(self._answer, host)
        self.endpoint = self._server.endpoint

    def announce(self, machine: str, how: str = "certain") -> None:
        """Tell the machine from now on."""
        with self._lock:
            self._announced[machine] = how

    def close(self) -> None:
        self._server.close()

    def _answer(self, request: Request) -> Reply:
        machine = self._who(request.client)
        if not machine:
            return Reply(404)
        with self._lock:
            how = self._announced.get(machine, "")
        reply = self.answer(machine, request, how)
        if how and reply.status == 200 and self.tells(reply):
            self.told.add(machine)
        return reply

    def answer(self, machine: str, request: Request, how: str) -> Reply:
        raise NotImplementedError

    def tells(self, reply: Reply) -> bool:
        raise NotImplementedError


class Ec2Metadata(Metadata):
    """Version 2 of the instance metadata service."""

    def __init__(self, who: Who, host: str) -> None:
        super().__init__(who, host)
        self._sessions: dict[str, str] = {}

    def end_sessions(self) -> None:
        """As after their time to live."""
        self._sessions.clear()

    def answer(self, machine: str, request: Request, how: str) -> Reply:
        if request.path == "/latest/api/token":
            return self._session(machine, request)
        token = request.headers.get("x-aws-ec2-metadata-token", "")
        if self._sessions.get(token) != machine:
            return Reply(401)
        if request.path == "/latest/meta-data/spot/instance-action" and how == "certain":
            return _json({"action": "terminate", "time": _in(120)})
        if request.path == "/latest/meta-data/events/recommendations/rebalance" and how:
            return _json({"noticeTime": _in(0)})
        return Reply(404)

    def _session(self, machine: str, request: Request) -> Reply:
        seconds = request.headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")
        if request.method != "PUT" or not seconds.isdecimal() or not 1 <= int(seconds) <= 21600:
            return Reply(400)
        token = secrets.token_urlsafe(24)
        self._sessions[token] = machine
        return Reply(200, token.encode(), {"Content-Type": "text/plain"})

    def tells(self, reply: Reply) -> bool:
        return b"action" in reply.body


class GceMetadata(Metadata):
    """The metadata server of Compute Engine."""

    def answer(self, machine: str, request: Request, how: str) -> Reply:
        if request.headers.get("metadata-flavor") != "Google":
            return Reply(403)
        found = {
            "/computeMetadata/v1/instance/preempted": "TRUE" if how == "certain" else "FALSE",
            "/computeMetadata/v1/instance/maintenance-event": "NONE",
        }.get(request.path)
        if found is None:
            return Reply(404)
        return Reply(200, found.encode(), {"Content-Type": "application/text", "Metadata-Flavor": "Google"})

    def tells(self, reply: Reply) -> bool:
        return reply.body == b"TRUE"


def _json(value: object) -> Reply:
    return Reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})


def _in(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
