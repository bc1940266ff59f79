"""What IBM's errors mean: HTTP status, `errors[].code` and `status_reasons[].code` to kinds of fault. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vmrun.core.clouds import CloudError, Fault, Scope

#: The quota that machines count against: one for all families of profiles.
VCPU_BUCKET = "vCPU per region"
FLOATING_IP_BUCKET = "floating IPs per zone"
_TRACE_MAX = 80

_BILLING = ("account_disabled", "account_setup_incomplete", "account_suspended", "account_type_invalid")
_UNIQUE = ("validation_unique_failed", "duplicate_error")
_UNIQUE_SAYS = ("is not unique", "already exists", "name is in use", "name is already in use", "must be unique")
#: Parts of codes that blame the request.
_WRONG_REQUEST = ("bad_", "invalid", "missing", "not_found", "required", "too_large", "unsupported", "validation_")
_CAPACITY = ("capacity", "cannot_start", "out_of_stock")

_BUSY = "it is used by something, or in the middle of another change: look with `vmrun status`, and try again later"
_HINTS = {
    Fault.permission: "see `vmrun doctor`; the access policies that vmrun needs: `vmrun doctor --on ibm --policy`",
    Fault.billing: "the account must be active and of the kind Pay-As-You-Go or Subscription: cloud.ibm.com/billing",
    Fault.throttle: "too many requests at once; it goes on by itself after a while",
    Fault.stockout: "the zone has no room for this profile now; another zone or profile may",
    Fault.not_offered: "`vmrun offers --on ibm` lists what there is in the configured regions",
    Fault.unavailable: "IBM Cloud did not answer as it should; its state is at cloud.ibm.com/status",
    Fault.unknown: "vmrun does not know this error; report it to IBM with its trace",
}


class IbmError(CloudError):
    """An error of IBM's API, with what the driver itself decides by."""

    #: HTTP status; 0 when there was no answer.
    status: int = 0
    #: Whether a name is used already.
    name_taken: bool = False
    #: Seconds that the server asked to wait; 0 if it did not.
    retry_after: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that is no success, as it came."""

    status: int
    #: The body, decoded; anything if it was no JSON.
    body: object = None
    #: `Retry-After` in seconds, 0 for none.
    retry_after: float = 0.0


def from_answer(answer: Answer, doing: str) -> IbmError:
    """The error for an answer to `doing`, such as "create_instance in us-south"."""
    code, message, target, trace = _parts(answer.body)
    fault, scope, bucket = _classify(answer.status, code.lower(), message.lower(), target)
    text = f"IBM Cloud refused {doing}: {message or f'HTTP {answer.status}'}"
    text += f" ({code})" if code else ""
    text += f" [trace {trace}]" if trace else ""
    hint = _BUSY if answer.status == 409 else _hint(fault, bucket)
    error = IbmError(text, fault=fault, scope=scope, cloud_code=code or str(answer.status), bucket=bucket, hint=hint)
    error.status = answer.status
    error.name_taken = _is_taken(answer.status, code.lower(), message.lower())
    error.retry_after = answer.retry_after
    return error


def no_answer(reason: str, doing: str) -> IbmError:
    """The error for a request whose outcome is unknown: the connection failed or timed out."""
    return IbmError(
        f"no answer from IBM Cloud to {doing}: {reason}",
        fault=Fault.unavailable,
        scope=Scope.region,
        hint="see whether this computer reaches the internet (or `ibm.endpoint`, where it is set), and "
        "cloud.ibm.com/status",
    )


def no_credentials(reason: str) -> IbmError:
    """The error for an API key that is missing or malformed."""
    return IbmError(
        reason,
        fault=Fault.permission,
        scope=Scope.cloud,
        hint="set IBMCLOUD_API_KEY, or `api_key` in [ibm]; a key is made by: ibmcloud iam api-key-create vmrun",
    )


def of_reasons(raw: Mapping[str, Any]) -> tuple[str, Fault | None]:
    """Why an instance could not start, or was ended, by its own fields; ("", None) if nothing is wrong with it."""
    for reason in _dicts(raw.get("status_reasons")):
        fault = _status_fault(str(reason.get("code", "")))
        if fault is not None:
            return _sentence(reason), fault
    for reason in _dicts(raw.get("lifecycle_reasons")):
        code = str(reason.get("code", ""))
        if code == "resource_suspended_by_provider":
            return _sentence(reason), Fault.billing
        if code.startswith("failed_") or code == "internal_error":
            return _sentence(reason), Fault.unavailable
    if raw.get("status") == "failed" or raw.get("lifecycle_state") == "failed":
        return "IBM Cloud says that it failed, and not why", Fault.unavailable
    return "", None


def _status_fault(code: str) -> Fault | None:
    if code.startswith("cannot_start"):
        return Fault.stockout  # whatever comes after it: another zone or profile is the remedy
    if code == "stopped_by_preemption":
        return Fault.preempted
    return Fault.unavailable if code == "stopped_by_host_failure" else None


def _sentence(reason: Mapping[str, Any]) -> str:
    return f"{reason.get('message') or 'no reason given'} ({reason.get('code')})"


def _parts(body: object) -> tuple[str, str, str, str]:
    """Code, message, name of the field at fault, trace."""
    if not isinstance(body, Mapping):
        return "", str(body or "")[:300], "", ""
    trace = str(body.get("trace") or body.get("transaction_id") or "")[:_TRACE_MAX]
    first = next(iter(_dicts(body.get("errors"))), {})
    if not first:
        # IAM answers with fields of other names.
        message = body.get("errorMessage") or body.get("message") or body.get("error") or ""
        return str(body.get("errorCode") or body.get("code") or ""), str(message), "", trace
    message, code = str(first.get("message", "")), str(first.get("code", ""))
    if code == "bad_field" and '"errors"' in message:
        # The error of an inner service as text in the outer one.
        code, message = _inner(message) or (code, message)
    return code, message, str((first.get("target") or {}).get("name", "")), trace


def _inner(text: str) -> tuple[str, str] | None:
    start = text.find("{")
    try:
        inner = json.loads(text[start:]) if start >= 0 else {}
    except ValueError:
        return None
    found = next(iter(_dicts(inner.get("errors"))), None)
    return (str(found.get("code", "")), str(found.get("message", ""))) if found else None


def _classify(status: int, code: str, message: str, target: str) -> tuple[Fault, Scope, str]:
    if status == 429 or "rate_limit" in code or "too_many_requests" in code:
        return Fault.throttle, Scope.region, ""
    if "quota" in code or "limit_exceeded" in code:
        floating = "floating" in f"{code} {message} {target}"
        return (Fault.quota, Scope.zone, FLOATING_IP_BUCKET) if floating else (Fault.quota, Scope.bucket, VCPU_BUCKET)
    if code in _BILLING or status == 402:
        return Fault.billing, Scope.cloud, ""
    if _denied(status, code):
        return Fault.permission, Scope.cloud, ""
    if any(word in code for word in _CAPACITY):
        return Fault.stockout, Scope.offer, ""
    if _no_such_profile(status, code, target):
        return Fault.not_offered, Scope.offer, ""
    return _by_status(status, code)


def _denied(status: int, code: str) -> bool:
    return status in (401, 403) or code in ("not_authorized", "forbidden") or code.startswith("bxnim04")


def _no_such_profile(status: int, code: str, target: str) -> bool:
    named = "profile" in code or target.partition(".")[0] == "profile"
    return named and "volume" not in code and status in (400, 404, 409, 422)


def _by_status(status: int, code: str) -> tuple[Fault, Scope, str]:
    if status >= 500 or status == 409 or status < 400:
        # 409: something is in the middle of another change; below 400: an answer that could not be read.
        return Fault.unavailable, Scope.region, ""
    if not code or any(word in code for word in _WRONG_REQUEST):
        return Fault.config, Scope.cloud, ""
    return Fault.unknown, Scope.offer, ""


def _is_taken(status: int, code: str, message: str) -> bool:
    if status not in (400, 409, 422):
        return False
    return code in _UNIQUE or "duplicate" in code or any(text in message for text in _UNIQUE_SAYS)


def _hint(fault: Fault, bucket: str) -> str:
    if fault is Fault.quota:
        return f"ask for more of {bucket!r} at cloud.ibm.com/unifiedsupport/cases, or use another region"
    return _HINTS.get(fault, "see the keys of [ibm] in vmrun.toml, and `vmrun doctor`")


def _dicts(value: object) -> Iterable[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []
