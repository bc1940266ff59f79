"""Refusals in the words of IBM's API: status, code, message, and the field that is to blame.

Codes and messages are those of IBM's own list ("API error messages", docs of VPC, `rias-error-messages`), statuses
those that users of the Terraform provider and the SDK report: a taken name is 400 `validation_unique_failed` with
`Provided Name (x) is not unique` and the field as target (vpc-python-sdk #65), a zone or profile that will not do is
400 `bad_field` (terraform-provider-ibm #1113), a disk's taken name is `volume_name_duplicate`
(cluster-api-provider-ibmcloud #2260).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.clouds.trouble import Trouble


@dataclass
class Refusal(Exception):
    """The cloud says no."""

    status: int
    code: str
    message: str
    #: The field that is to blame, and its value.
    target: str = ""
    value: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self, trace: str) -> dict[str, Any]:
        """As it is sent."""
        error: dict[str, Any] = {
            "code": self.code,
            "message": self.message,
            "more_info": f"https://cloud.ibm.com/docs/vpc?topic=vpc-rias-error-messages#{self.code}",
        }
        if self.target:
            error["target"] = {"name": self.target, "type": "field"}
            if isinstance(self.value, str | int | bool):
                error["target"]["value"] = str(self.value)
        return {"errors": [error], "trace": trace}


def taken(name: str) -> Refusal:
    """Another resource of the kind has the name."""
    return Refusal(400, "validation_unique_failed", f"Provided Name ({name}) is not unique", "name", name)


def bad_field(target: str, value: Any, message: str) -> Refusal:
    """A field holds what there is not, or what does not go with the rest."""
    return Refusal(400, "bad_field", message, target, value)


def not_found(kind: str, id: str) -> Refusal:
    """The path names what there is not."""
    return Refusal(404, "not_found", f"The {kind} '{id}' could not be found. Please check whether it exists.", "id", id)


def conflict(code: str, message: str) -> Refusal:
    """Not in the present state."""
    return Refusal(409, code, message)


def over_quota(what: str, limit: int) -> Refusal:
    """The account has no more of it."""
    return Refusal(400, "over_quota", f"The request would exceed the quota for a resource type: {what} (limit {limit})")


def not_offered(profile: str, zone: str) -> Refusal:
    """The type is not to be had there at all."""
    message = f"The instance profile '{profile}' is not available in zone '{zone}'"
    return bad_field("profile.name", profile, message)


_PLAIN: dict[Trouble, Refusal] = {
    Trouble.permission: Refusal(403, "not_authorized", "The request is not authorized."),
    Trouble.billing: Refusal(403, "account_disabled", "The account requesting this resource is disabled."),
    Trouble.throttle: Refusal(
        429, "rate_limit_exceeded", "Too many requests within a short time.", headers={"Retry-After": "1"}
    ),
    Trouble.unavailable: Refusal(503, "backend_service_unavailable", "The back-end service is unavailable."),
    Trouble.unknown: Refusal(422, "flux_capacitor_drained", "Something that nobody has heard of."),
}


def of_trouble(trouble: Trouble, *, profile: str, zone: str) -> Refusal:
    """How this cloud says it."""
    if trouble is Trouble.quota:
        return over_quota("vCPUs of instances in the region", 200)
    if trouble is Trouble.not_offered:
        return not_offered(profile, zone)
    if trouble is Trouble.config:
        return bad_field("image.id", "r006-gone", "Image not found: check that the image exists and is available")
    return _PLAIN[trouble]
