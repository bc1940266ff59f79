"""From what Compute Engine answers to a CloudError: which fault, how far it reaches, what to do next. Pure.

An error comes in one of two forms: an HTTP status with a document, or an operation that was accepted and failed.
Both are read into one `Trouble` and judged by the same table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vmrun.core.clouds import CloudError, Fault, Scope

from . import hints
from .families import FAMILY_METRIC

#: What each code means, whichever way it comes. Codes are compared in lower case, without `_`.
_FAULTS: Mapping[str, tuple[Fault, Scope]] = {
    code.replace("_", "").lower(): (fault, scope)
    for fault, scope, codes in (
        (Fault.stockout, Scope.offer, "ZONE_RESOURCE_POOL_EXHAUSTED ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS"),
        (Fault.stockout, Scope.offer, "stockout resource_availability insufficientCapacity RESOURCE_POOL_EXHAUSTED"),
        (Fault.stockout, Scope.region, "IP_SPACE_EXHAUSTED IP_SPACE_EXHAUSTED_WITH_DETAILS"),
        (Fault.not_offered, Scope.offer, "UNSUPPORTED_OPERATION conditionNotMet CONDITION_NOT_MET"),
        (Fault.quota, Scope.bucket, "QUOTA_EXCEEDED quotaExceeded LIMIT_EXCEEDED limitExceeded"),
        (Fault.throttle, Scope.region, "rateLimitExceeded userRateLimitExceeded RATE_LIMIT_EXCEEDED"),
        (Fault.throttle, Scope.region, "RESOURCE_OPERATION_RATE_EXCEEDED concurrentLimitExceeded resourceNotReady"),
        (Fault.throttle, Scope.region, "RESOURCE_NOT_READY tooManyRequests RESOURCE_EXHAUSTED"),
        (Fault.permission, Scope.cloud, "forbidden IAM_PERMISSION_DENIED PERMISSION_DENIED insufficientPermissions"),
        (Fault.permission, Scope.cloud, "PERMISSIONS_ERROR ACCESS_TOKEN_SCOPE_INSUFFICIENT required authError"),
        (Fault.permission, Scope.cloud, "SERVICE_DISABLED accessNotConfigured UNAUTHENTICATED ACCESS_DENIED"),
        (Fault.permission, Scope.cloud, "invalidCredentials expired serviceAccountAccessDenied"),
        (Fault.billing, Scope.cloud, "BILLING_DISABLED billingNotEnabled accountDisabled dailyBillingLimitExceeded"),
        (Fault.unavailable, Scope.region, "backendError internalError INTERNAL_ERROR INTERNAL UNAVAILABLE"),
        (Fault.unavailable, Scope.region, "SERVICE_UNAVAILABLE"),
        (Fault.config, Scope.cloud, "invalid badRequest INVALID_USAGE INVALID_FIELD_VALUE INVALID_ARGUMENT"),
        (Fault.config, Scope.cloud, "parseError invalidParameter wrongUrlFormat REQUIRED_FIELD_MISSING"),
        (Fault.config, Scope.cloud, "alreadyExists RESOURCE_ALREADY_EXISTS duplicate"),
    )
    for code in codes.split()
}
#: What a status means when no code says more.
_STATUS: Mapping[int, tuple[Fault, Scope]] = {
    400: (Fault.config, Scope.cloud),
    401: (Fault.permission, Scope.cloud),
    402: (Fault.billing, Scope.cloud),
    403: (Fault.permission, Scope.cloud),
    408: (Fault.unavailable, Scope.region),
    429: (Fault.throttle, Scope.region),
}
_CONSTRAINT = re.compile(r"constraints/[A-Za-z0-9_.]+")
_QUOTA = re.compile(r"[Qq]uota '([A-Z0-9_-]+)' exceeded")
_PERMISSION = re.compile(r"'([a-z]+\.[A-Za-z]+\.[A-Za-z]+)'(?= permission)|[Pp]ermission '([a-z]+\.[A-Za-z.]+)'")
_REGION = re.compile(r"(?:in region |/regions/)([a-z]+-[a-z]+\d+)")
_MISSING = re.compile(r"not found|does not exist|cannot be found", re.IGNORECASE)
_BILLING = re.compile(r"billing (?:account|to be enabled|is disabled|must be enabled)|enable billing", re.IGNORECASE)
#: Quotas whose end is not that of one family: how far each reaches.
_WIDE = {"CPUS_ALL_REGIONS": Scope.cloud, "GPUS_ALL_REGIONS": Scope.cloud}
_NOT_CPUS = ("_GB", "_IOPS", "_THROUGHPUT", "_ADDRESSES", "INSTANCES", "FIREWALLS", "NETWORKS")


@dataclass(frozen=True, slots=True)
class Trouble:
    """What Compute Engine said, in either form."""

    #: HTTP status; of an operation, the one that it names; 0 if there is none.
    status: int = 0
    #: All codes and reasons, the most telling first.
    codes: tuple[str, ...] = ()
    message: str = ""
    #: Quota, dimensions, metadata: the details, merged.
    details: Mapping[str, str] = field(default_factory=dict)


def read_http(status: int, document: Any) -> Trouble:
    """The error of a response, whatever its body is."""
    error = document.get("error") if isinstance(document, dict) else None
    if not isinstance(error, dict):
        text = error if isinstance(error, str) else ""
        return Trouble(status, (), text or f"HTTP {status}")
    codes: list[str] = []
    details: dict[str, str] = {}
    for each in _dicts(error.get("details")):
        _add(codes, each.get("reason"))
        details |= _texts(each.get("metadata"))
        for violation in _dicts(each.get("violations")):
            details |= {key: str(violation[key]) for key in ("subject", "quotaMetric") if key in violation}
    for each in _dicts(error.get("errors")):
        _add(codes, each.get("reason"))
        for detail in _dicts(each.get("errorDetails")):
            details |= _detail(detail, codes)
    _add(codes, error.get("status"))
    return Trouble(status, tuple(codes), str(error.get("message") or f"HTTP {status}"), details)


def read_operation(operation: Mapping[str, Any]) -> Trouble | None:
    """The error of an operation, or None for one that has not failed."""
    error = operation.get("error")
    listed = _dicts(error.get("errors")) if isinstance(error, dict) else []
    status = int(operation.get("httpErrorStatusCode") or 0)
    if not listed:
        return Trouble(status, (), str(operation.get("httpErrorMessage") or "")) if status >= 400 else None
    codes: list[str] = []
    details: dict[str, str] = {}
    for each in listed:
        _add(codes, each.get("code"))
        for detail in _dicts(each.get("errorDetails")):
            details |= _detail(detail, codes)
    return Trouble(status, tuple(codes), "; ".join(str(each.get("message", "")) for each in listed), details)


def cloud_error(trouble: Trouble, *, doing: str, project: str = "", creating: bool = False) -> CloudError:
    """The error for `trouble`, which came of `doing`, such as `instances.insert`.

    `creating`: a missing or wrong machine type then means that another offer may do.
    """
    fault, scope, code = _judge(trouble, creating=creating)
    bucket = ""
    region = _region(trouble)
    if fault is Fault.quota:
        bucket = _bucket(trouble)
        scope = _quota_scope(bucket)
    constraint = _constraint(trouble)
    missing = _PERMISSION.search(trouble.message)
    hint = hints.hint(
        fault,
        hints.Facts(
            project=project,
            region=region,
            bucket=bucket,
            codes=frozenset(_plain(each) for each in trouble.codes),
            constraint=constraint,
            permission=(missing[1] or missing[2]) if missing else trouble.details.get("permission", ""),
            service=trouble.details.get("service", ""),
            network=_names(trouble.message, "network"),
            status=trouble.status,
        ),
    )
    return CloudError(
        f"{doing}: {trouble.message}"[:2000], fault=fault, scope=scope, cloud_code=code, bucket=bucket, hint=hint
    )


def is_absent(error: CloudError, name: str) -> bool:
    """Whether `error` says that the resource of this name is not there, and not that the project or zone is not."""
    return _plain(error.cloud_code) in ("notfound", "resourcenotfound") and f"/{name}'" in error.message


def is_taken(error: CloudError) -> bool:
    """Whether `error` says that the name of what was to be created is taken."""
    return _plain(error.cloud_code) in ("alreadyexists", "resourcealreadyexists")


def is_used(error: CloudError) -> bool:
    """Whether `error` says that the resource is in use by another."""
    return _plain(error.cloud_code) in ("resourceinusebyanotherresource", "resourceinuse")


def unreachable(doing: str, why: str) -> CloudError:
    """The error for a request that had no answer: it may have been carried out."""
    return CloudError(
        f"{doing}: no answer from Compute Engine: {why}",
        fault=Fault.unavailable,
        scope=Scope.region,
        hint="see whether this computer reaches compute.googleapis.com "
        "(or `gce.endpoint`, where it is set), then run the command again",
    )


def unauthenticated(why: str, *, hint: str = "") -> CloudError:
    """The error for credentials that are missing, expired, or not readable."""
    return CloudError(
        f"no usable credentials for Google Cloud: {why}",
        fault=Fault.permission,
        scope=Scope.cloud,
        cloud_code="UNAUTHENTICATED",
        hint=hint or hints.CREDENTIALS,
    )


def _judge(trouble: Trouble, *, creating: bool) -> tuple[Fault, Scope, str]:
    """Fault, scope, and the code that told it."""
    first = trouble.codes[0] if trouble.codes else ""
    if _constraint(trouble):
        return Fault.permission, Scope.cloud, _constraint(trouble)
    if trouble.status in (400, 401, 403) and _BILLING.search(trouble.message):
        return Fault.billing, Scope.cloud, first
    if _is_missing(trouble):
        fault, scope = _missing_thing(trouble.message, creating=creating)
        return fault, scope, first
    for code in trouble.codes:
        if known := _FAULTS.get(_plain(code)):
            # What is wrong with a request may be that this zone, image or disk does not go with the type.
            elsewhere = creating and known[0] is Fault.config and _names(trouble.message, "machinetype")
            return *((Fault.not_offered, Scope.offer) if elsewhere else known), code
    if trouble.status >= 500:
        return Fault.unavailable, Scope.region, first
    # A code that nobody knows says more than 400, which is also what failed operations have when all was well formed.
    known_status = {} if trouble.codes and trouble.status == 400 else _STATUS
    return *known_status.get(trouble.status, (Fault.unknown, Scope.offer)), first


def _is_missing(trouble: Trouble) -> bool:
    codes = {_plain(code) for code in trouble.codes}
    if trouble.status == 404 or codes & {"notfound", "resourcenotfound"}:
        return True
    return trouble.status == 400 and "invalid" in codes and _MISSING.search(trouble.message) is not None


def _missing_thing(message: str, *, creating: bool) -> tuple[Fault, Scope]:
    """What it means that a thing which the request names is not there."""
    if not creating:
        return Fault.config, Scope.cloud
    if _names(message, "machinetype") or _names(message, "disktype"):
        return Fault.not_offered, Scope.offer
    if "/regions/" in message:
        return Fault.config, Scope.region
    return Fault.config, Scope.cloud


def _names(message: str, thing: str) -> bool:
    """Whether a message is about a thing, written in any of Google's ways: `machineTypes/x`, "Machine type"."""
    return thing in message.replace(" ", "").lower()


def _bucket(trouble: Trouble) -> str:
    """The quota's name, as in `Offer.bucket`: the metric without its service, and the family if it has one."""
    found = _QUOTA.search(trouble.message)
    metric = trouble.details.get("metricName") or trouble.details.get("quotaMetric") or ""
    name = (metric.rpartition("/")[2] or (found[1] if found else "")).upper().replace("-", "_")
    family = trouble.details.get("vm_family", "")
    if name.startswith(FAMILY_METRIC) and family:
        return f"{FAMILY_METRIC}/{family.upper()}"
    return name


def _quota_scope(bucket: str) -> Scope:
    if bucket in _WIDE:
        return _WIDE[bucket]
    # Disks and addresses run out for every type alike.
    return Scope.region if bucket.endswith(_NOT_CPUS) else Scope.bucket


def _region(trouble: Trouble) -> str:
    named = trouble.details.get("region", "")
    found = _REGION.search(trouble.message)
    return named or (found[1] if found else "")


def _constraint(trouble: Trouble) -> str:
    found = _CONSTRAINT.search(" ".join([trouble.message, *trouble.details.values()]))
    return found[0].rstrip(".") if found else ""


def _detail(detail: Mapping[str, Any], codes: list[str]) -> dict[str, str]:
    """One entry of `errorDetails`: the facts of a quota or an error."""
    quota, info = detail.get("quotaInfo"), detail.get("errorInfo")
    found: dict[str, str] = {}
    if isinstance(quota, dict):
        found = {**_texts(quota), **_texts(quota.get("dimensions"))}
    if isinstance(info, dict):
        _add(codes, info.get("reason"))
        found |= _texts(info.get("metadatas"))
    return found


def _plain(code: str) -> str:
    return code.replace("_", "").lower()


def _add(codes: list[str], code: object) -> None:
    if isinstance(code, str) and code and code not in codes:
        codes.append(code)


def _dicts(value: object) -> Iterable[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _texts(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {str(key): str(each) for key, each in value.items() if not isinstance(each, dict | list)}
