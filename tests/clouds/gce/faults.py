"""What Compute Engine says when it refuses: at once, over HTTP, or later, in an operation that is done with an error.

For one trouble there is more than one way to say it. A rule's `size` picks among them, in the order in which they stand
in `_WAYS`; 0 is the commonest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.clouds.server import Reply, json_reply
from tests.clouds.trouble import Rule, Trouble

_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    412: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
_ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
NUMBER = "123456789012"


@dataclass(eq=False)
class Refusal(Exception):
    """An answer that is an error."""

    status: int
    reason: str
    message: str
    domain: str = "global"
    #: As `error.details`.
    details: tuple[Mapping[str, Any], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Instead of JSON: what a proxy before the service says.
    html: str = ""

    @property
    def code(self) -> str:
        """The word by which the record of calls names it: the most telling one."""
        return next((str(one["reason"]) for one in self.details if "reason" in one), self.reason)

    def reply(self) -> Reply:
        """As it goes out."""
        if self.html:
            return Reply(self.status, self.html.encode(), {"Content-Type": "text/html; charset=UTF-8"})
        error: dict[str, Any] = {
            "code": self.status,
            "message": self.message,
            "errors": [{"message": self.message, "domain": self.domain, "reason": self.reason}],
        }
        if self.status in _STATUS:
            error["status"] = _STATUS[self.status]
        if self.details:
            error["details"] = list(self.details)
        return json_reply(self.status, {"error": error}, **self.headers)


@dataclass(frozen=True)
class Failure:
    """How an operation ends that was accepted."""

    code: str
    message: str
    status: int = 400
    #: As `error.errors[].errorDetails`.
    details: tuple[Mapping[str, Any], ...] = ()

    def error(self) -> dict[str, Any]:
        """As `operation.error`."""
        one: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.details:
            one["errorDetails"] = json.loads(json.dumps(self.details))
        return {"errors": [one]}


@dataclass(frozen=True)
class About:
    """What a call that goes wrong was about; "" for what it was not."""

    project: str
    method: str
    permission: str = ""
    instance_type: str = ""
    zone: str = ""
    region: str = ""
    resource: str = ""


def not_found(resource: str) -> Refusal:
    """A resource by its path: `projects/p/zones/z/instances/n`."""
    return Refusal(404, "notFound", f"The resource '{resource}' was not found")


def exists(resource: str) -> Refusal:
    return Refusal(409, "alreadyExists", f"The resource '{resource}' already exists")


def invalid(field: str, value: object, why: str) -> Refusal:
    return Refusal(400, "invalid", f"Invalid value for field '{field}': '{value}'. {why}")


def in_use(resource: str, by: str) -> Refusal:
    return Refusal(
        400,
        "resourceInUseByAnotherResource",
        f"The resource '{resource}' is already being used by '{by}'",
    )


def denied(permission: str, resource: str) -> Refusal:
    return Refusal(403, "forbidden", f"Required '{permission}' permission for '{resource}'")


def not_in_zone(instance_type: str, zone: str) -> Refusal:
    """What a create answers for a type that the zone has not."""
    value = f"https://www.googleapis.com/compute/v1/projects/{NUMBER}/zones/{zone}/machineTypes/{instance_type}"
    why = f"Machine type with name '{instance_type}' does not exist in zone '{zone}'."
    return invalid("resource.machineType", value, why)


def quota_failure(metric: str, limit: float, region: str, family: str = "") -> Failure:
    """`metric` as regions.get names it; `family` is the dimension of the newer families' one metric."""
    dimensions = {"region": region or "global", **({"vm_family": family} if family else {})}
    message = f"Quota '{metric}' exceeded.  Limit: {limit:.1f} {f'in region {region}' if region else 'globally'}."
    info = {
        "metricName": f"compute.googleapis.com/{metric.lower()}",
        "limitName": f"{metric.replace('_', '-')}-per-project{'-region' if region else ''}",
        "dimensions": dimensions,
        "limit": limit,
    }
    return Failure("QUOTA_EXCEEDED", message, 403, ({"quotaInfo": info},))


def no_room(about: About, *, detailed: bool) -> Failure:
    """A stockout: the zone has no machine of this type now."""
    zone = f"projects/{about.project}/zones/{about.zone}"
    if not detailed:
        message = (
            f"The zone '{zone}' does not have enough resources available to fulfill the request.  Try a different "
            "zone, or try again later."
        )
        return Failure("ZONE_RESOURCE_POOL_EXHAUSTED", message, 503)
    message = (
        f"The zone '{zone}' does not have enough resources available to fulfill the request, "
        f"'(resource type:compute)'. A {about.instance_type} VM instance is currently unavailable in the {about.zone} "
        "zone. Consider trying your request in other zone(s) that currently has capacity."
    )
    metadatas = {"zone": about.zone, "vmType": about.instance_type, "attachment": "", "zonesAvailable": ""}
    info = {"reason": "resource_availability", "domain": "compute.googleapis.com", "metadatas": metadatas}
    return Failure("ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", message, 503, ({"errorInfo": info},))


# --- the ways ---


def _no_room_at_once(about: About) -> Refusal:
    return Refusal(503, "stockout", no_room(about, detailed=False).message, details=(_info("stockout"),))


def _quota(about: About) -> Failure:
    family = about.instance_type.partition("-")[0].upper()
    return quota_failure(f"{family}_CPUS" if family in ("N2", "N2D", "C3", "C2") else "CPUS", 24.0, about.region)


def _quota_of_family(about: About) -> Failure:
    return quota_failure("CPUS_PER_VM_FAMILY", 24.0, about.region, about.instance_type.partition("-")[0].upper())


def _quota_at_once(about: About) -> Refusal:
    return Refusal(403, "quotaExceeded", _quota(about).message, "usageLimits")


def _not_offered_later(about: About) -> Failure:
    message = f"Machine type {about.instance_type} is not supported in zone {about.zone}."
    return Failure("UNSUPPORTED_OPERATION", message)


def _not_found_later(about: About) -> Failure:
    path = f"projects/{about.project}/zones/{about.zone}/machineTypes/{about.instance_type}"
    return Failure("RESOURCE_NOT_FOUND", f"The resource '{path}' was not found", 404)


def _denied(about: About) -> Refusal:
    return denied(about.permission or about.method, about.resource)


def _denied_in_detail(about: About) -> Refusal:
    info = _info("IAM_PERMISSION_DENIED", "iam.googleapis.com", permission=about.permission, resource=about.resource)
    message = f"Permission '{about.permission}' denied on resource '{about.resource}' (or it may not exist)."
    return Refusal(403, "forbidden", message, details=(info,))


def _api_off(about: About) -> Refusal:
    message = (
        f"Compute Engine API has not been used in project {NUMBER} before or it is disabled. Enable it by visiting "
        "the API's page in the console then retry."
    )
    info = _info("SERVICE_DISABLED", "googleapis.com", service="compute.googleapis.com", consumer=f"projects/{NUMBER}")
    return Refusal(403, "accessNotConfigured", message, "usageLimits", (info,))


def _no_public_address(about: About) -> Refusal:
    message = (
        f"Constraint constraints/compute.vmExternalIpAccess violated for project {about.project}. Add instance "
        f"{about.resource} to the constraint to use external IP with it."
    )
    return Refusal(412, "conditionNotMet", message)


def _billing(about: About) -> Refusal:
    message = (
        f"This API method requires billing to be enabled. Please enable billing on project #{NUMBER} by visiting the "
        "console's billing page then retry."
    )
    info = _info(
        "BILLING_DISABLED", "googleapis.com", service="compute.googleapis.com", consumer=f"projects/{about.project}"
    )
    return Refusal(403, "forbidden", message, details=(info,))


def _throttle(about: About) -> Refusal:
    message = (
        "Quota exceeded for quota metric 'Queries' and limit 'Queries per minute' of service 'compute.googleapis.com' "
        f"for consumer 'project_number:{NUMBER}'."
    )
    info = _info("RATE_LIMIT_EXCEEDED", "googleapis.com", service="compute.googleapis.com")
    return Refusal(403, "rateLimitExceeded", message, "usageLimits", (info,))


def _too_many(about: About) -> Refusal:
    return Refusal(429, "rateLimitExceeded", "Rate Limit Exceeded", "usageLimits", headers={"Retry-After": "1"})


def _too_fast(about: About) -> Failure:
    message = f"Operation rate exceeded for resource '{about.resource}'. Too frequent operations from the source."
    return Failure("RESOURCE_OPERATION_RATE_EXCEEDED", message, 429)


def _no_image(about: About) -> Refusal:
    value = "https://www.googleapis.com/compute/v1/projects/nobody/global/images/no-such-image"
    why = "The referenced image resource cannot be found."
    return invalid("resource.disks[0].initializeParams.sourceImage", value, why)


def _no_subnetwork(about: About) -> Refusal:
    value = f"projects/{about.project}/regions/{about.region}/subnetworks/no-such-subnetwork"
    why = "The referenced subnetwork resource cannot be found."
    return invalid("resource.networkInterfaces[0].subnetwork", value, why)


def _backend(about: About) -> Refusal:
    return Refusal(503, "backendError", "Service is unavailable at this time. Please try again later.")


def _internal(about: About) -> Refusal:
    return Refusal(500, "internalError", "Internal error. Please try again or contact Google Support. (Code: 'double')")


def _gateway(about: About) -> Refusal:
    return Refusal(502, "badGateway", "", html="<html><title>Error 502 (Server Error)!!1</title></html>")


def _unheard_of(about: About) -> Refusal:
    return Refusal(418, "fluxCapacitorDischarged", "The flux capacitor is discharged.")


def _unheard_of_later(about: About) -> Failure:
    return Failure("FLUX_CAPACITOR_DISCHARGED", "The flux capacitor is discharged.")


Way = Callable[[About], Refusal | Failure]
_WAYS: Mapping[Trouble, tuple[Way, ...]] = {
    Trouble.stockout: (
        lambda about: no_room(about, detailed=False),
        lambda about: no_room(about, detailed=True),
        _no_room_at_once,
    ),
    Trouble.quota: (_quota, _quota_at_once, _quota_of_family),
    Trouble.not_offered: (
        lambda about: not_in_zone(about.instance_type, about.zone),
        _not_offered_later,
        _not_found_later,
    ),
    Trouble.permission: (_denied, _denied_in_detail, _api_off, _no_public_address),
    Trouble.billing: (_billing,),
    Trouble.throttle: (_throttle, _too_many, _too_fast),
    Trouble.config: (_no_image, _no_subnetwork),
    Trouble.unavailable: (_backend, _internal, _gateway),
    Trouble.unknown: (_unheard_of, _unheard_of_later),
    Trouble.accepted_then_failed: (
        lambda about: no_room(about, detailed=True),
        lambda about: Failure("INTERNAL_ERROR", "Internal error. Please try again or contact Google Support.", 500),
    ),
}


def say(rule: Rule, about: About) -> Refusal | Failure:
    """How this rule's trouble is said. A way that only an operation has falls back to the first for other calls."""
    ways = _WAYS[rule.trouble]
    said = ways[min(rule.size, len(ways) - 1)](about)
    if isinstance(said, Failure) and not about.method.endswith("instances.insert"):
        return ways[0](about)
    return said


def _info(reason: str, domain: str = "compute.googleapis.com", **metadata: str) -> dict[str, Any]:
    return {"@type": _ERROR_INFO, "reason": reason, "domain": domain, "metadata": metadata}
