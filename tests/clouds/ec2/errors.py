"""Troubles in the words of AWS."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import NoReturn

from tests.clouds.trouble import Trouble

from .protocol import Call, Refused

#: Those that can happen to any call, before anything is done.
EVERYWHERE = (Trouble.permission, Trouble.billing, Trouble.throttle, Trouble.unavailable, Trouble.unknown)
#: Those that are refusals of RunInstances.
CREATING = (Trouble.stockout, Trouble.quota, Trouble.not_offered, Trouble.config)
#: Error messages name a policy that nobody can read without this.
_ENCODED = "double-of-ec2:"

_JSON, _EC2 = "json", "ec2"


def say(trouble: Trouble, call: Call, **about: str) -> NoReturn:
    """Refuse the call as AWS does for this trouble."""
    raise _SAY[trouble](call, about)


def protocol(call: Call) -> str:
    """Codes differ by the family of the service."""
    if call.request.headers.get("x-amz-target"):
        return _JSON
    return call.service


def unauthorized(call: Call, account: str) -> Refused:
    """The caller may not; on EC2 the reason is encoded."""
    who = f"User: arn:aws:iam::{account}:user/vmrun is not authorized to perform: {call.service}:{call.operation}"
    why = f"because no identity-based policy allows the {call.service}:{call.operation} action"
    if call.service != _EC2:
        code = "AccessDeniedException" if protocol(call) == _JSON else "AccessDenied"
        return Refused(code, f"{who} on resource: * {why}", 400 if protocol(call) == _JSON else 403)
    encoded = base64.urlsafe_b64encode(f"{_ENCODED}{call.operation}".encode()).decode()
    message = f"You are not authorized to perform this operation. {who} {why}. Encoded authorization failure message: "
    return Refused("UnauthorizedOperation", message + encoded, 403)


def decode(encoded: str) -> str:
    """The operation in an encoded authorization failure message. Refused when it is none of ours."""
    try:
        text = base64.urlsafe_b64decode(encoded).decode()
    except ValueError:
        text = ""
    if not text.startswith(_ENCODED):
        raise Refused("InvalidAuthorizationMessageException", "Message was invalid", 400)
    return text.removeprefix(_ENCODED)


def _permission(call: Call, about: dict[str, str]) -> Refused:
    return unauthorized(call, about.get("account", ""))


def _billing(call: Call, about: dict[str, str]) -> Refused:
    if call.operation == "RunInstances":
        return Refused(
            "PendingVerification",
            "Your request for accessing resources in this region is being validated, and you will not be able to "
            "launch additional resources in this region until the validation is complete. We will notify you by "
            "email once your request has been validated.",
        )
    message = "You are not subscribed to this service. Please go to http://aws.amazon.com to subscribe."
    return Refused("OptInRequired", message, 401)


def _throttle(call: Call, about: dict[str, str]) -> Refused:
    if call.service == _EC2:
        return Refused("RequestLimitExceeded", "Request limit exceeded.", 503)
    return Refused("ThrottlingException" if protocol(call) == _JSON else "Throttling", "Rate exceeded", 400)


def _unavailable(call: Call, about: dict[str, str]) -> Refused:
    if call.service == _EC2:
        return Refused("InternalError", "An internal error has occurred", 500)
    return Refused("ServiceUnavailable", "Service is unavailable. Please try again shortly", 503)


def _unknown(call: Call, about: dict[str, str]) -> Refused:
    return Refused("IncompatibleMoonPhase", "The moon is not in the phase that this operation needs.", 400)


def _stockout(call: Call, about: dict[str, str]) -> Refused:
    if about.get("spot"):
        message = "There is no Spot capacity available that matches your request."
    else:
        message = (
            f"We currently do not have sufficient {about['instance_type']} capacity in the Availability Zone you "
            f"requested ({about['zone']}). Our system will be working on provisioning additional capacity."
        )
    return Refused("InsufficientInstanceCapacity", message, 500)


def _quota(call: Call, about: dict[str, str]) -> Refused:
    if about.get("spot"):
        return Refused("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded", 400)
    limit = about.get("limit") or "32"
    return Refused(
        "VcpuLimitExceeded",
        f"You have requested more vCPU capacity than your current vCPU limit of {limit} allows for the instance "
        "bucket that the specified instance type belongs to. Please visit "
        "http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit.",
        400,
    )


def _not_offered(call: Call, about: dict[str, str]) -> Refused:
    elsewhere = about.get("elsewhere")
    choose = f" or choosing {elsewhere}" if elsewhere else ""
    return Refused(
        "Unsupported",
        f"Your requested instance type ({about['instance_type']}) is not supported in your requested Availability "
        f"Zone ({about['zone']}). Please retry your request by not specifying an Availability Zone{choose}.",
        400,
    )


def _config(call: Call, about: dict[str, str]) -> Refused:
    image = about.get("image") or "ami-0000"
    return Refused("InvalidAMIID.NotFound", f"The image id '[{image}]' does not exist", 400)


_SAY: dict[Trouble, Callable[[Call, dict[str, str]], Refused]] = {
    Trouble.permission: _permission,
    Trouble.billing: _billing,
    Trouble.throttle: _throttle,
    Trouble.unavailable: _unavailable,
    Trouble.unknown: _unknown,
    Trouble.stockout: _stockout,
    Trouble.quota: _quota,
    Trouble.not_offered: _not_offered,
    Trouble.config: _config,
}
