"""Who calls: the key file of a service account, the tokens that it is traded for, and what the account may do."""

from __future__ import annotations

import base64
import binascii
import functools
import json
import secrets
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.clouds.server import Reply, Request, json_reply
from vmrun.core.clock import SystemClock

from .discovery import Method
from .faults import Refusal

TOKEN_PATH = "/token"
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
#: What google-auth writes as the audience, whatever the key file says of the endpoint.
_AUDIENCE = "https://oauth2.googleapis.com/token"
#: Seconds for which a token holds, and by which clocks may differ.
_LIFE, _SKEW = 3600, 300


@functools.cache
def _key() -> rsa.RSAPrivateKey:
    """One for the process: making it takes a moment."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def key_file(endpoint: str, project: str, account: str) -> str:
    """The text of a key file whose tokens come from the double."""
    private = _key().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    content = {
        "type": "service_account",
        "project_id": project,
        "private_key_id": "double",
        "private_key": private.decode(),
        "client_email": account,
        "client_id": "100000000000000000001",
        "token_uri": endpoint + TOKEN_PATH,
    }
    return json.dumps(content)


class Tokens:
    """Access tokens, for those who prove that they hold the key."""

    def __init__(self, endpoint: Callable[[], str], account: str, now: Callable[[], float]) -> None:
        self._endpoint = endpoint
        self._account = account
        self._now = now
        #: By token: until when, and the scopes.
        self._issued: dict[str, tuple[float, frozenset[str]]] = {}

    def issue(self, request: Request) -> Reply:
        """The answer of the token endpoint."""
        form = urllib.parse.parse_qs(request.body.decode())
        if form.get("grant_type") != [_GRANT]:
            return json_reply(400, {"error": "unsupported_grant_type"})
        try:
            claims = self._claims(form.get("assertion", [""])[0], self._endpoint() + TOKEN_PATH)
        except ValueError as error:
            return json_reply(400, {"error": "invalid_grant", "error_description": str(error)})
        scopes = frozenset(str(claims.get("scope", "")).split())
        if not scopes:
            return json_reply(400, {"error": "invalid_scope", "error_description": "Empty or missing scope"})
        return json_reply(200, self.give(scopes))

    def give(self, scopes: frozenset[str]) -> dict[str, Any]:
        """A token for these scopes, as it is handed out."""
        token = f"ya29.{secrets.token_urlsafe(24)}"
        self._issued[token] = (self._now() + _LIFE, scopes)
        return {"access_token": token, "expires_in": _LIFE, "token_type": "Bearer"}

    def check(self, request: Request, method: Method) -> None:
        """Refuses a call without a token that is good for this method."""
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        until, scopes = self._issued.get(token, (0.0, frozenset()))
        if kind.lower() != "bearer" or until < self._now():
            message = "Request had invalid authentication credentials. Expected OAuth 2 access token."
            raise Refusal(401, "authError", message)
        if not scopes & set(method.scopes):
            message = "Request had insufficient authentication scopes."
            raise Refusal(403, "insufficientPermissions", message)

    def _claims(self, assertion: str, audience: str) -> Mapping[str, Any]:
        """What a signed assertion says. ValueError when it is not signed by the account's key, or not for here."""
        head, _, rest = assertion.partition(".")
        body, _, signature = rest.partition(".")
        try:
            signed = f"{head}.{body}".encode()
            _key().public_key().verify(_decoded(signature), signed, padding.PKCS1v15(), hashes.SHA256())
            claims = json.loads(_decoded(body))
        except (InvalidSignature, binascii.Error) as error:
            raise ValueError("Invalid JWT Signature.") from error
        if claims.get("iss") != self._account or claims.get("aud") not in (audience, _AUDIENCE):
            raise ValueError("Invalid JWT: not from this account, or not for this endpoint.")
        # The caller's clock is that of this computer, whatever the double's says.
        if not SystemClock().now() - _SKEW < claims.get("exp", 0):
            raise ValueError("Invalid JWT: Token must be a short-lived token.")
        return dict(claims)


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


# --- permissions ---

_VERBS = {"insert": "create", "aggregatedList": "list", "patch": "update", "wait": "get"}
#: Collections that nobody is asked a permission for.
_FREE = ("cloudresourcemanager.projects.testIamPermissions", "cloudbilling.services.skus.list")


def needed(method: Method, body: Mapping[str, Any]) -> Iterator[str]:
    """The permissions that a call needs, the one that it is named after first."""
    if method.id in _FREE:
        return
    yield ".".join([*method.id.split(".")[:-1], _VERBS.get(method.verb, method.verb)])
    if method.id == "compute.instances.insert":
        yield from _of_insert(body)
    elif method.collection == "firewalls" and method.http != "GET":
        yield "compute.networks.updatePolicy"


def _of_insert(body: Mapping[str, Any]) -> Iterator[str]:
    yield "compute.disks.create"
    yield "compute.subnetworks.use"
    if any(interface.get("accessConfigs") for interface in body.get("networkInterfaces", ())):
        yield "compute.subnetworks.useExternalIp"
    if body.get("metadata", {}).get("items"):
        yield "compute.instances.setMetadata"
    if body.get("labels"):
        yield "compute.instances.setLabels"
    if any(disk.get("initializeParams", {}).get("labels") for disk in body.get("disks", ())):
        yield "compute.disks.setLabels"
    if body.get("tags", {}).get("items"):
        yield "compute.instances.setTags"
    if body.get("serviceAccounts"):
        yield "compute.instances.setServiceAccount"
        yield "iam.serviceAccounts.actAs"
