"""From a request to an answer: who calls, what it means, whether it is well formed, what goes wrong with it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from typing import Any

from tests.clouds.server import Cut, Reply, Request, json_reply
from tests.clouds.trouble import Trouble

from . import changes, discovery, fields, metadata, reads, world
from .faults import About, Refusal, denied, invalid, say
from .identity import TOKEN_PATH, Tokens, needed
from .project import Call, Project
from .store import Resource

_HANDLERS = {**reads.HANDLERS, **changes.HANDLERS}
#: What may go wrong with any call, before anything is done.
_TROUBLES = (Trouble.permission, Trouble.billing, Trouble.throttle, Trouble.unavailable, Trouble.unknown)
#: Seconds for which `wait` waits, and between two looks; the real one waits for up to two minutes, and may not.
_WAIT, _LOOK = 2.0, 0.01
#: Parameters that all methods have and that change nothing here.
_COMMON = ("alt", "prettyPrint", "quotaUser", "key", "fields")


class Service:
    """Answers for one project."""

    def __init__(self, project: Project, tokens: Tokens) -> None:
        self._project = project
        self._tokens = tokens

    def answer(self, request: Request) -> Reply:
        """Raises Cut where the script wants it."""
        if request.path == TOKEN_PATH:
            with self._project.lock:
                return self._tokens.issue(request)
        with self._project.lock:
            if (told := metadata.answer(self._project, self._tokens, request)) is not None:
                return told
        found = discovery.find(request.method, request.path)
        if found is None:
            return Refusal(404, "notFound", f"There is no {request.method} {request.path}").reply()
        method, path = found
        record = self._project.script.record(method.id)
        try:
            call = self._call(request, method, path, record)
            answer = self._answered(call)
        except Refusal as refusal:
            record.outcome = refusal.code
            return refusal.reply()
        except Cut:
            record.outcome = "cut"
            raise
        if record.outcome == "cut":
            raise Cut(reset=True)
        record.outcome = "ok"
        return json_reply(200, answer)

    def _call(self, request: Request, method: discovery.Method, path: Mapping[str, str], record: Any) -> Call:
        try:
            body = request.json()
        except ValueError as error:
            raise Refusal(400, "parseError", f"Parse Error: {error}") from error
        record.about.update(_told(path, request, body))
        with self._project.lock:
            self._tokens.check(request, method)
        try:
            parameters = discovery.check_parameters(method, path, request.query)
            checked = discovery.check_request(method, body)
        except discovery.Invalid as error:
            raise Refusal(400, "invalid", str(error)) from error
        if method.id not in _HANDLERS:
            raise Refusal(501, "notImplemented", f"This double does not play {method.id}.")
        about = self._about(method, parameters, checked, record.about)
        return Call(method, parameters, checked, about, record)

    def _about(
        self, method: discovery.Method, parameters: Mapping[str, Any], body: Mapping[str, Any], told: Mapping[str, Any]
    ) -> About:
        """Refuses a project, zone or region that is none."""
        name, zone = parameters.get("project", ""), parameters.get("zone", "")
        project = self._project.store.project
        if name not in ("", project) and not (method.collection == "images" and world.images(name)):
            raise Refusal(404, "notFound", f"The resource 'projects/{name}' was not found")
        region = parameters.get("region", "") or (world.region_of(zone) if zone else "")
        if zone and zone not in set(world.zones()):
            raise invalid("zone", zone, "Unknown zone.")
        if region and method.collection != "regions" and region not in world.REGIONS:
            raise invalid("region", region, "Unknown region.")
        permission = next(needed(method, body), "")
        place = f"/zones/{zone}" if zone else f"/regions/{region}" if region else "/global"
        resource = f"projects/{project}{place}/{method.collection}/{told.get('name', '')}"
        return About(project, method.id, permission, told.get("instance_type", ""), zone, region, resource.rstrip("/"))

    def _answered(self, call: Call) -> Any:
        """The answer, checked; the record's outcome is `cut` when it is to be lost."""
        script = self._project.script
        if call.rule(script, Trouble.request_lost):
            raise Cut(reset=True)
        if call.method.id != "compute.instances.insert" and (rule := call.rule(script, *_TROUBLES)):
            raise _said(say(rule, call.about))
        if call.method.verb == "wait":
            answer = self._waited(call)
        else:
            with self._project.lock:
                answer = self._done(call)
        # A copy: what is answered now must not change with what it was taken from.
        answer = json.loads(json.dumps(answer))
        discovery.check_response(call.method, answer)
        if call.rule(script, Trouble.reply_lost):
            call.record.outcome = "cut"
        return fields.select(answer, call.parameters.get("fields", ""))

    def _done(self, call: Call) -> Any:
        self._project.life.settle()
        self._may(call)
        if before := self._repeated(call):
            return before
        if call.method.id == "compute.instances.insert" and (
            rule := call.rule(self._project.script, Trouble.permission, Trouble.billing, Trouble.unavailable)
        ):
            raise _said(say(rule, call.about))
        return _HANDLERS[call.method.id](self._project, call)

    def _repeated(self, call: Call) -> Resource | None:
        if "requestId" not in call.method.parameters:
            return None
        return self._project.operations.repeated(call.request_id, call.asked)

    def _may(self, call: Call) -> None:
        if call.parameters.get("project", call.about.project) != call.about.project:
            return  # images that are everybody's
        for permission in needed(call.method, call.body):
            if not self._project.may(permission):
                raise denied(permission, call.about.resource)

    def _waited(self, call: Call) -> Any:
        give_up, pause = time.monotonic() + _WAIT, threading.Event()
        while True:
            with self._project.lock:
                answer = self._done(call)
            if answer["status"] == "DONE" or time.monotonic() > give_up:
                return answer
            pause.wait(_LOOK)


def _said(said: object) -> Refusal:
    assert isinstance(said, Refusal), said
    return said


def _told(path: Mapping[str, str], request: Request, body: Any) -> dict[str, Any]:
    """What the record of a call says it was about."""
    told: dict[str, Any] = {key: path[key] for key in ("zone", "region") if key in path}
    if "zone" in path:
        told.setdefault("region", world.region_of(path["zone"]))
    names = [value for key, value in path.items() if key not in ("project", "zone", "region", "resource")]
    if names:
        told["name"] = names[-1]
    if isinstance(body, dict):
        told.update({key: body[key] for key in ("name",) if isinstance(body.get(key), str)})
        if isinstance(kind := body.get("machineType"), str):
            told["instance_type"] = kind.rpartition("/")[2]
    if token := request.parameter("requestId"):
        told["token"] = token
    return told
