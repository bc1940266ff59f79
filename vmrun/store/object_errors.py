"""What a remote object store's refusals mean: from the client library's exceptions to the error tree.

The exceptions themselves are not kept as causes: they quote the server's reply, in which some servers repeat a
session token, and for Azure the signed address.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vmrun.core.errors import KeyNotFound, StoreAbsent, StoreDenied, StoreError, StoreUnavailable, StoreUnsafe

_STATUS = re.compile(r"status code: (\d{3})\b")
_CODE = re.compile(r"<Code>([A-Za-z0-9_.-]{1,80})</Code>")
_CERTIFICATE = re.compile(r"InvalidCertificate\(\s*(\w+)")
_MESSAGE = re.compile(r"<Message>([^<]{1,300})")

#: Answers that decide nothing about the request.
_UNDECIDED = {408, 409, 425, 429}
_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound", "InvalidBucketName", "ContainerBeingDeleted", "AccountNotFound"}
#: Refusals that some servers send as 400 where others send 403.
_DENIALS = {
    "AuthorizationHeaderMalformed",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "TokenRefreshRequired",
    "AuthenticationFailed",
}
_REDIRECTS = {301, 302, 303, 307, 308}

_CREDENTIALS_HINT = (
    "set store.access_key_id and store.secret_access_key, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
    "or AWS_PROFILE"
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The facts in one exception of the client library."""

    #: HTTP status; 0 when there was no answer.
    status: int
    #: The server's own code for it, as in `<Code>`.
    code: str
    message: str
    text: str

    @classmethod
    def of(cls, error: Exception) -> Refusal:
        """What `error` says."""
        text = str(error)
        status, code, message = _STATUS.search(text), _CODE.search(text), _MESSAGE.search(text)
        return cls(
            int(status[1]) if status else 0,
            code[1] if code else "",
            message[1].strip() if message else "",
            text,
        )

    def __str__(self) -> str:
        if not self.status:
            return _why_no_answer(self.text)
        told = ": ".join(part for part in (self.code, self.message) if part)
        return f"HTTP {self.status} {told}".rstrip()


def _why_no_answer(text: str) -> str:
    if certificate := _CERTIFICATE.search(text):
        return f"its TLS certificate is not trusted ({certificate[1]})"
    for mark, why in (
        ("dns error", "its host name was not found"),
        ("lookup address", "its host name was not found"),
        ("Connection refused", "connection refused"),
        ("kind: Timeout", "no answer in time"),
        ("TimedOut", "no answer in time"),
        ("kind: Connect", "no connection"),
    ):
        if mark in text:
            return why
    return "the connection broke"


def translated(error: Exception, doing: str, key: str, where: str) -> StoreError:
    """The error of the tree for `error`, met while `doing` something to `key` in the store at `where`."""
    refusal = Refusal.of(error)
    what = f"cannot {doing} {key or 'objects'} in {where}: {refusal}"
    if refusal.status:
        return _answered(refusal, doing, key, what)
    if "169.254.169.254" in refusal.text or "metadata.google.internal" in refusal.text:
        return StoreDenied(f"cannot {doing} in {where}: there are no credentials for it", hint=_CREDENTIALS_HINT)
    if _CERTIFICATE.search(refusal.text):
        return StoreDenied(what, hint="set store.ca_file to the certificate of the authority that signed it (PEM)")
    if "redirect without LOCATION" in refusal.text:
        return StoreAbsent(f"cannot {doing} in {where}: it lies in another region", hint="set store.region to its own")
    if "non-partial response" in refusal.text:
        return StoreUnsafe(
            f"{where} ignores byte ranges", hint="set store.url to an object store that honours Range requests"
        )
    if "builder error" in refusal.text:
        return StoreAbsent(
            f"cannot {doing} in {where}: its address cannot be used", hint="set store.endpoint to https://HOST[:PORT]"
        )
    return StoreUnavailable(what, hint="check the network and store.endpoint, then run the command again")


def _answered(refusal: Refusal, doing: str, key: str, what: str) -> StoreError:
    status, code = refusal.status, refusal.code
    if code == "RequestTimeTooSkewed":
        return StoreDenied(what, hint="this machine's clock is wrong: set it (for example with chrony)")
    if code in _NO_BUCKET:
        return StoreAbsent(what, hint="make the bucket, or correct store.url and store.endpoint")
    if status in {401, 403} or code in _DENIALS:
        return StoreDenied(what, hint=_denied_hint(code))
    if status in _REDIRECTS:
        return StoreAbsent(what, hint="the bucket lies in another region or at another address: set store.region")
    if status in _UNDECIDED or (status >= 500 and status != 501) or code == "RequestTimeout":
        return StoreUnavailable(what, hint="the store is busy or failing; try again")
    if status == 404 and doing in {"read", "delete"}:
        return KeyNotFound(f"there is no object {key}")
    if status == 404:
        return StoreAbsent(what, hint="nothing answers for this bucket: correct store.url and store.endpoint")
    if status == 501 and doing == "create":
        return StoreUnsafe(what, hint="this store has no create-only writes: set store.url to one that has")
    return StoreError(what, hint="this store does not do what vmrun needs; choose another one, or a directory")


def _denied_hint(code: str) -> str:
    if code in {"ExpiredToken", "TokenRefreshRequired"}:
        return "the credentials have expired: get new ones"
    if code in {"AccessDenied", "AuthorizationPermissionMismatch"}:
        return (
            "grant these credentials to get, put, delete and list objects of the bucket "
            "(without the right to list, S3 denies absent objects too)"
        )
    if code == "AuthorizationHeaderMalformed":
        return "set store.region to the region of the bucket"
    return _CREDENTIALS_HINT
