"""IAM, and what a machine of the cloud can ask about itself: tokens that expire, for people and for instances."""

from __future__ import annotations

import base64
import json
import re
import urllib.parse
import uuid
from dataclasses import dataclass
from typing import Any

from tests.clouds.server import Reply, Request, json_reply

from .refusals import Refusal
from .world import ACCOUNT, Account, Instance

#: Seconds that a token of IAM is good for.
LIFE = 3600
_LIFE_MAX = 3600
_APIKEY_GRANT = "urn:ibm:params:oauth:grant-type:apikey"
#: Both generations of the metadata service's paths, and a machine's name before them where it cannot be told by
#: where it asks from.
_METADATA = re.compile(
    r"(?:/guest/(?P<guest>[^/]+))?/(?P<what>(?:instance_)?identity/v1/\w+|metadata/v1/instance|instance/v1)"
)


@dataclass(frozen=True)
class Holder:
    """Whom a token was given to: the account's user, or an instance."""

    expires: float
    #: Identifier of the instance; "" for the user.
    instance: str = ""
    #: Good for the metadata service only.
    metadata_only: bool = False


class Iam:
    """Gives tokens and knows them again."""

    def __init__(self, account: Account, api_key: str) -> None:
        self._account = account
        self.api_key = api_key
        self._holders: dict[str, Holder] = {}

    def expire(self) -> None:
        """Every token that was given ends now."""
        self._holders.clear()

    def authenticate(self, header: str) -> Holder:
        """Who sent this `Authorization`. Refusal when it is nobody."""
        kind, _, token = header.partition(" ")
        if kind.lower() != "bearer" or not token:
            raise Refusal(401, "token_missing", "The service token was empty or did not exist in the request.")
        holder = self._holders.get(token)
        if holder is None or holder.metadata_only or holder.expires <= self._account.now():
            raise Refusal(401, "token_invalid", "The service token was expired or invalid.")
        return holder

    def token(self, request: Request) -> tuple[Reply, str]:
        """The answer of `POST /identity/token`, and its outcome."""
        form = dict(urllib.parse.parse_qsl(request.body.decode()))
        if form.get("grant_type") != _APIKEY_GRANT:
            return _iam_error("BXNIM0137E", "Property grant_type is invalid."), "BXNIM0137E"
        if form.get("apikey") != self.api_key:
            return _iam_error("BXNIM0415E", "Provided API key could not be found."), "BXNIM0415E"
        token, expires = self._give(LIFE)
        given = {
            "access_token": token,
            "refresh_token": "not_supported",
            "token_type": "Bearer",
            "expires_in": LIFE,
            "expiration": int(expires),
            "scope": "ibm openid",
        }
        return json_reply(200, given), "ok"

    def _give(self, seconds: int, instance: str = "", *, metadata_only: bool = False) -> tuple[str, float]:
        """A token in the form that the SDK takes apart; its signature is nobody's."""
        now = self._account.now()
        claims = {
            "iat": int(now),
            "exp": int(now + seconds),
            "iss": "https://iam.cloud.ibm.com/identity",
            "account": {"bss": ACCOUNT[2:]},
            "sub": instance or "somebody@example.com",
            "jti": str(uuid.uuid4()),
        }
        parts = [{"alg": "RS256", "typ": "JWT", "kid": "double"}, claims]
        token = ".".join([*(_encode(json.dumps(part).encode()) for part in parts), _encode(b"unsigned")])
        self._holders[token] = Holder(now + seconds, instance, metadata_only)
        return token, now + seconds

    # --- the metadata service ---

    def metadata(self, request: Request) -> tuple[Reply, str] | None:
        """The answer of the metadata service, and its outcome; None for a path that is not of it."""
        match = _METADATA.fullmatch(request.path)
        if match is None:
            return None
        try:
            if request.headers.get("metadata-flavor") != "ibm" and "token" in match["what"]:
                raise Refusal(400, "bad_request", "The header Metadata-Flavor must be 'ibm'.")
            return json_reply(200, self._tell(match["what"].rpartition("/")[2], match["guest"] or "", request)), "ok"
        except Refusal as refusal:
            return json_reply(refusal.status, refusal.body(str(uuid.uuid4()))), refusal.code

    def _tell(self, what: str, guest: str, request: Request) -> dict[str, Any]:
        if what == "token":
            seconds = min(int((request.json() or {}).get("expires_in", 300)), _LIFE_MAX)
            token, expires = self._give(seconds, self._guest(guest, request.client).id, metadata_only=True)
            return {"access_token": token, **self._times(seconds, expires)}
        holder = self._holders.get(request.headers.get("authorization", "").partition(" ")[2])
        if holder is None or not holder.instance or holder.expires <= self._account.now():
            raise Refusal(401, "token_invalid", "The instance identity token was expired or invalid.")
        instance = self._guest(holder.instance)
        if what in ("instance", "v1"):
            return {"id": instance.id, "name": instance.name, "zone": {"name": instance.zone}}
        wanted = ((request.json() or {}).get("trusted_profile") or {}).get("id", instance.trusted_profile)
        if not instance.trusted_profile or wanted != instance.trusted_profile:
            raise Refusal(403, "not_authorized", "The instance is not linked to this trusted profile.")
        token, expires = self._give(LIFE, instance.id)
        return {"access_token": token, **self._times(LIFE, expires)}

    def _times(self, seconds: int, expires: float) -> dict[str, Any]:
        from .shapes import moment

        return {"created_at": moment(expires - seconds), "expires_at": moment(expires), "expires_in": seconds}

    def _guest(self, name: str, peer: str = "") -> Instance:
        """The machine that asks: the one that is named, or has the address, or the only one that there is."""
        known = [one for one in self._account.instances.all() if one.metadata.get("enabled")]
        at = [one for one in known if not name and one.interface.address == peer]
        asking = at or [one for one in known if not name or name in (one.id, one.name)]
        if len(asking) != 1:
            raise Refusal(
                404, "not_found", "The metadata service is not enabled on the instance, or it is not clear which."
            )
        return asking[0]


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _iam_error(code: str, message: str) -> Reply:
    return json_reply(
        400,
        {"errorCode": code, "errorMessage": message, "context": {"requestId": uuid.uuid4().hex, "url": "iam"}},
    )
