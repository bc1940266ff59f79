"""From a request to its reply: what comes before and after the handlers, the same for all of them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tests.clouds.server import Cut, Reply, Request, json_reply
from tests.clouds.trouble import Call, Rule, Script, Trouble

from . import addresses, compute, images, network, sdk, services
from .iam import Iam
from .refusals import Refusal, of_trouble
from .requests import Answer, Ask, Handler
from .world import Account, region_of

HANDLERS: Mapping[str, Handler] = compute.HANDLERS | images.HANDLERS | network.HANDLERS | addresses.HANDLERS
_OLDEST_VERSION = "2019-01-01"
#: Elsewhere IAM has an address of its own.
_TRUSTED = "/v1/profiles/"
#: What can happen to any call before anything is done, and what to one that makes something.
_ANY = (Trouble.permission, Trouble.throttle, Trouble.unavailable, Trouble.unknown)
_MAKING = (Trouble.quota, Trouble.billing, Trouble.config)


class App:
    """Answers every request to the cloud."""

    def __init__(self, account: Account, script: Script, iam: Iam) -> None:
        self._account = account
        self._script = script
        self._iam = iam

    def answer(self, request: Request) -> Reply:
        """Raises Cut where the script says so, AssertionError where the double itself is not what the SDK expects."""
        if request.path.startswith("/v1/") and not request.path.startswith(_TRUSTED):
            return self._vpc(request)
        if request.path == "/identity/token" and request.method == "POST":
            return self._token(request)
        with self._account.lock:
            told = self._iam.metadata(request)
        if told is not None:
            call = self._script.record(f"metadata {request.path}")
            call.outcome = told[1]
            return told[0]
        return self._elsewhere(request)

    # --- IAM and other services ---

    def _token(self, request: Request) -> Reply:
        call = self._script.record("request_token")
        rule = self._named("request_token", Trouble.request_lost, Trouble.reply_lost, *_ANY)
        if rule is not None and rule.trouble is Trouble.request_lost:
            raise _cut(call)
        if rule is not None and rule.trouble is not Trouble.reply_lost:
            return _refused(call, of_trouble(rule.trouble, profile="", zone=""))
        with self._account.lock:
            reply, call.outcome = self._iam.token(request)
        if rule is not None:
            raise _cut(call)
        return reply

    def _named(self, operation: str, *among: Trouble) -> Rule | None:
        """A rule that names the operation: what is meant for any call is meant for the VPC API."""
        if not any(rule.operation == operation for rule in self._script._rules):
            return None
        return self._script.pick(operation, *among)

    def _elsewhere(self, request: Request) -> Reply:
        call = self._script.record(f"{request.method} {request.path}")
        try:
            with self._account.lock:
                call.operation, body = services.answer(self._account, self._iam, request)
        except Refusal as refusal:
            return _refused(call, refusal)
        call.outcome = "ok"
        return json_reply(200, body)

    # --- the VPC API ---

    def _vpc(self, request: Request) -> Reply:
        path = request.path.removeprefix("/v1")
        found = sdk.find(request.method, path)
        if found is None:
            call = self._script.record(f"{request.method} {request.path}")
            return _refused(call, Refusal(404, "invalid_route", "The requested route does not exist."))
        operation, parameters = found
        about = self._about(request, parameters)
        call = self._script.record(operation.name, **about)
        if self._script.pick(operation.name, Trouble.request_lost, **about):
            raise _cut(call)
        lost = self._script.pick(operation.name, Trouble.reply_lost, **about)
        try:
            ask = self._understood(request, operation, parameters, about)
            reply = self._done(operation, ask, call)
        except Refusal as refusal:
            reply = _refused(call, refusal)
        if lost is not None:
            raise _cut(call)
        return reply

    def _about(self, request: Request, parameters: dict[str, str]) -> dict[str, str]:
        """What rules choose by: of the body, or of the instance that the path names."""
        about = {"path": request.path.removeprefix("/v1"), **parameters}
        body = _json(request)
        if isinstance(body, dict):
            for key, name in (("instance_type", "profile"), ("zone", "zone")):
                value = body.get(name)
                if isinstance(value, dict) and isinstance(value.get("name"), str):
                    about[key] = value["name"]
            if isinstance(body.get("name"), str):
                about["name"] = body["name"]
        elif request.parameter("name"):
            about["name"] = request.parameter("name")
        with self._account.lock:
            one = self._account.instances.get(parameters.get("id", parameters.get("instance_id", "")))
            address = self._account.addresses.get(parameters.get("id", ""))
        if address is not None:
            about["name"] = address.name
        if one is not None:
            about |= {"instance_type": one.profile.name, "zone": one.zone, "name": one.name}
        if "zone" in about:
            about["region"] = region_of(about["zone"])
        return about

    def _understood(
        self, request: Request, operation: sdk.Operation, parameters: dict[str, str], about: dict[str, str]
    ) -> Ask:
        """Refusal unless the caller is known, and all that was sent fits the API."""
        with self._account.lock:
            self._iam.authenticate(request.headers.get("authorization", ""))
        query = {name: values[0] for name, values in request.query.items()}
        self._check_query(operation, query)
        body = _json(request)
        if operation.body is not None:
            _check_body(operation, body)
        return Ask(operation.name, self._account, self._script, parameters, query, body or {}, query["version"], about)

    def _check_query(self, operation: sdk.Operation, query: dict[str, str]) -> None:
        version = query.get("version", "")
        try:
            datetime.strptime(version, "%Y-%m-%d").replace(tzinfo=UTC)
        except ValueError:
            message = "The `version` parameter is invalid, it must be of the form `YYYY-MM-DD`."
            raise Refusal(400, "invalid_version", message, "version", version) from None
        today = datetime.fromtimestamp(self._account.now(), UTC).strftime("%Y-%m-%d")
        if not _OLDEST_VERSION <= version <= max(today, _OLDEST_VERSION):
            message = f"The `version` value cannot be set at a future date nor before `{_OLDEST_VERSION}`."
            raise Refusal(400, "invalid_version_range", message, "version", version)
        if query.get("generation") != "2":
            message = "The generation query parameter is invalid."
            raise Refusal(400, "invalid_generation_parameter", message, "generation", query.get("generation"))
        for name, value in query.items():
            if name not in operation.query:
                message = f"{name} is not a parameter of {operation.name}"
                raise Refusal(400, "invalid_request_field", message, name, value)

    def _done(self, operation: sdk.Operation, ask: Ask, call: Call) -> Reply:
        making = operation.name.startswith("create_") and operation.name != "create_instance_action"
        among = _ANY + (_MAKING if making else ())
        if operation.name == "create_instance":
            among += (Trouble.not_offered,)
        rule = ask.pick(*among)
        if rule is not None:
            raise of_trouble(rule.trouble, profile=ask.about.get("instance_type", ""), zone=ask.about.get("zone", ""))
        handler = HANDLERS.get(operation.name)
        if handler is None:
            raise Refusal(501, "not_implemented", f"This double has no {operation.name}.")
        with self._account.lock:
            # To look at machines takes time, and matters to calls about instances only.
            self._account.settle(look="instance" in operation.name)
            answer = handler(ask)
        if answer.work is not None:
            answer.work()
        _check_answer(operation, answer)
        call.outcome = "ok"
        if answer.body is None:
            return Reply(answer.status, b"", {"X-Request-Id": str(uuid.uuid4())})
        return json_reply(answer.status, answer.body, **{"X-Request-Id": str(uuid.uuid4())})


def _cut(call: Call) -> Cut:
    call.outcome = "cut"
    return Cut()


def _refused(call: Call, refusal: Refusal) -> Reply:
    call.outcome = refusal.code
    trace = str(uuid.uuid4())
    headers = {"X-Request-Id": trace, "X-Correlation-Id": trace, **refusal.headers}
    return json_reply(refusal.status, refusal.body(trace), **headers)


def _json(request: Request) -> Any:
    """The body; None for none, and for what is not JSON."""
    try:
        return json.loads(request.body) if request.body else None
    except ValueError:
        return None


_CODES = {
    "unknown": "invalid_request_field",
    "missing": "validation_required_field",
    "kind": "validation_failure",
    "enum": "validation_enum",
}


def _check_body(operation: sdk.Operation, body: Any) -> None:
    if body is None:
        raise Refusal(400, "bad_request", "The information given was invalid, malformed, or missing a required field.")
    for misfit in sdk.check_body(operation, body):
        raise Refusal(400, _CODES[misfit.what], misfit.message, misfit.field)


def _check_answer(operation: sdk.Operation, answer: Answer) -> None:
    """What this double says must be what the SDK can read, or it is no double."""
    if operation.answer is None or answer.body is None:
        return
    misfits = sdk.check(operation.answer, answer.body)
    assert not misfits, f"{operation.name} answers with what is no {operation.answer.__name__}: {misfits[:5]}"
