"""What EC2's errors mean: from its codes, and the SDK's own failures, to a CloudError that says the next step."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from vmrun.catalog import EC2_QUOTA_NAMES, bucket
from vmrun.core.clouds import CloudError, Fault, InstanceNotFound, Scope

from .config import ON

_Meaning = tuple[Fault, Scope]

_NO_ROOM: _Meaning = (Fault.stockout, Scope.offer)
_NO_ROOM_IN_ZONE: _Meaning = (Fault.stockout, Scope.zone)
_NOT_HERE: _Meaning = (Fault.not_offered, Scope.offer)
_BUCKET: _Meaning = (Fault.quota, Scope.bucket)
_REGION_FULL: _Meaning = (Fault.quota, Scope.region)
_SLOW_DOWN: _Meaning = (Fault.throttle, Scope.region)
_FORBIDDEN: _Meaning = (Fault.permission, Scope.cloud)
_UNPAID: _Meaning = (Fault.billing, Scope.cloud)
_WRONG: _Meaning = (Fault.config, Scope.cloud)
_DOWN: _Meaning = (Fault.unavailable, Scope.region)

_CODES: dict[str, _Meaning] = {
    "InsufficientInstanceCapacity": _NO_ROOM,
    "InsufficientCapacity": _NO_ROOM,
    "InsufficientHostCapacity": _NO_ROOM,
    "InsufficientReservedInstanceCapacity": _NO_ROOM,
    "ReservationCapacityExceeded": _NO_ROOM,
    "UnfulfillableCapacity": _NO_ROOM,
    "SpotMaxPriceTooLow": _NO_ROOM,
    "InsufficientFreeAddressesInSubnet": _NO_ROOM_IN_ZONE,
    "InsufficientAddressCapacity": _NO_ROOM_IN_ZONE,
    "InsufficientVolumeCapacity": _NO_ROOM_IN_ZONE,
    "Unsupported": _NOT_HERE,
    "UnsupportedInstanceType": _NOT_HERE,
    "InvalidInstanceType": _NOT_HERE,
    "VcpuLimitExceeded": _BUCKET,
    "InstanceLimitExceeded": _BUCKET,
    "MaxSpotInstanceCountExceeded": _BUCKET,
    "MaxFleetCountExceeded": _REGION_FULL,
    "MaxIOPSLimitExceeded": _REGION_FULL,
    "RequestLimitExceeded": _SLOW_DOWN,
    "RequestThrottled": _SLOW_DOWN,
    "RequestThrottledException": _SLOW_DOWN,
    "Throttling": _SLOW_DOWN,
    "ThrottlingException": _SLOW_DOWN,
    "ThrottledException": _SLOW_DOWN,
    "EC2ThrottledException": _SLOW_DOWN,
    "TooManyRequestsException": _SLOW_DOWN,
    "BandwidthLimitExceeded": _SLOW_DOWN,
    "SlowDown": _SLOW_DOWN,
    "UnauthorizedOperation": _FORBIDDEN,
    "AccessDenied": _FORBIDDEN,
    "AccessDeniedException": _FORBIDDEN,
    "AuthFailure": _FORBIDDEN,
    "InvalidClientTokenId": _FORBIDDEN,
    "UnrecognizedClientException": _FORBIDDEN,
    "InvalidSignatureException": _FORBIDDEN,
    "IncompleteSignature": _FORBIDDEN,
    "SignatureDoesNotMatch": _FORBIDDEN,
    "MissingAuthenticationToken": _FORBIDDEN,
    "ExpiredToken": _FORBIDDEN,
    "ExpiredTokenException": _FORBIDDEN,
    "RequestExpired": _FORBIDDEN,
    "OptInRequired": _UNPAID,
    "PendingVerification": _UNPAID,
    "Blocked": _UNPAID,
    "IdempotentParameterMismatch": _WRONG,
    # It was created, and has ended before anybody could use it.
    "IdempotentInstanceTerminated": (Fault.preempted, Scope.offer),
    "MissingParameter": _WRONG,
    "UnknownParameter": _WRONG,
    "ValidationError": _WRONG,
    "ValidationException": _WRONG,
    "ParameterNotFound": _WRONG,
    "NoSuchResourceException": _WRONG,
    "DefaultVpcDoesNotExist": _WRONG,
    "VPCIdNotSpecified": _WRONG,
    "OperationNotPermitted": _WRONG,
    "MalformedPolicyDocument": _WRONG,
    "InternalError": _DOWN,
    "InternalFailure": _DOWN,
    "ServerInternal": _DOWN,
    "ServiceUnavailable": _DOWN,
    "ServiceUnavailableException": _DOWN,
    "Unavailable": _DOWN,
    "RequestTimeout": _DOWN,
}
#: Beginnings of codes, where a whole family means the same.
_PREFIXES: tuple[tuple[str, _Meaning], ...] = (
    ("AuthFailure", _FORBIDDEN),
    ("UnauthorizedOperation", _FORBIDDEN),
    ("Invalid", _WRONG),
)
#: What became of a machine that was accepted, by the code of its state's reason.
_REASONS: dict[str, Fault | None] = {
    "Server.InsufficientInstanceCapacity": Fault.stockout,
    "Server.SpotInstanceTermination": Fault.preempted,
    "Server.SpotInstanceShutdown": Fault.preempted,
    "Server.InternalError": Fault.unavailable,
    "Server.ScheduledStop": Fault.unavailable,
    "Client.VolumeLimitExceeded": Fault.quota,
    # A key of the disk's encryption that may not be used, an image that does not boot: nothing that passes.
    "Client.InternalError": Fault.config,
    "Client.InvalidSnapshot.NotFound": Fault.config,
    "Client.InstanceInitiatedShutdown": None,
    "Client.UserInitiatedShutdown": None,
    "Client.UserInitiatedHibernate": None,
}
_TYPE = re.compile(r"instance ?type", re.IGNORECASE)
_ENCODED = re.compile(r"\.?\s*Encoded authorization failure message:\s*(\S+)")
_ACTION = re.compile(r"perform:? (\w[\w-]*:\w+)")
#: Answers that say that there is no such instance, well-formed or not.
_NO_INSTANCE = ("InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed", "InvalidInstanceId")


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked, as far as its error depends on it."""

    #: `ec2:RunInstances`.
    action: str
    region: str = ""
    instance_type: str = ""
    spot: bool = False


def refused(request: Request, code: str, message: str, status: int = 400) -> CloudError:
    """The error for an answer of AWS with this code and text."""
    if code in _NO_INSTANCE:
        return InstanceNotFound(
            f"EC2 has no such instance: {message}", cloud_code=code, hint="it was deleted, or ended by itself"
        )
    fault, scope = _meaning(code, message, status)
    encoded = _ENCODED.search(message)
    text = _ENCODED.sub("", message).strip()
    where = f" in {request.region}" if request.region else ""
    return CloudError(
        f"{request.action}{where}: {code}: {text}",
        fault=fault,
        scope=scope,
        cloud_code=code,
        bucket=_quota_code(request, code) if fault is Fault.quota else "",
        hint=_hint(request, fault, code, text, encoded[1] if encoded else ""),
    )


def _meaning(code: str, message: str, status: int) -> _Meaning:
    if "service control policy" in message:
        return _FORBIDDEN
    if code in ("InvalidParameterValue", "InvalidParameterCombination") and "free tier" in message.lower():
        return _UNPAID
    if code in ("InvalidParameterValue", "InvalidParameterCombination") and _TYPE.search(message):
        return _NOT_HERE
    if "User data is limited to" in message:
        return _WRONG
    if code in _CODES:
        return _CODES[code]
    if code.endswith("LimitExceeded"):
        return _REGION_FULL
    for prefix, meaning in _PREFIXES:
        if code.startswith(prefix):
            return meaning
    return _DOWN if status >= 500 else (Fault.unknown, Scope.offer)


def _quota_code(request: Request, code: str) -> str:
    """The code of the vCPU quota, as in `Offer.bucket`; for other limits what EC2 calls them."""
    if request.instance_type and _CODES.get(code) is _BUCKET:
        return bucket(ON, request.instance_type, spot=request.spot or code.startswith("MaxSpot"))
    return code.removesuffix("Exceeded")


def _hint(request: Request, fault: Fault, code: str, text: str, encoded: str) -> str:
    if fault is Fault.permission:
        return _permission_hint(request, code, text, encoded)
    if fault is Fault.quota:
        return _quota_hint(request, code)
    if fault is Fault.billing:
        return _BILLING.get(
            "Free Tier" if code.startswith("Invalid") else code,
            "see the account's billing page, https://console.aws.amazon.com/billing/",
        )
    if fault is Fault.config:
        return _config_hint(code, text)
    return _OTHER.get(fault, "")


_OTHER = {
    Fault.stockout: "try again in a few minutes, or let vmrun choose among more types and regions (ec2.regions)",
    Fault.not_offered: "choose another --zone, --region or --instance-type",
    Fault.throttle: "AWS limits the calls of this account and region: wait, and use fewer vmrun processes at a time",
    Fault.unavailable: "see https://health.aws.amazon.com/health/status and try again",
    Fault.preempted: "try again: another machine is asked for",
    Fault.unknown: "vmrun does not know this error of AWS: it is shown as it came",
}
_BILLING = {
    "OptInRequired": "the account is not signed up for this service or region: complete it in the AWS console",
    "PendingVerification": "AWS is still verifying the account: wait some minutes, four hours at most, and try again",
    "Free Tier": "the account is on the free plan, which rents small types only: upgrade it in the billing console",
    "Blocked": "AWS has blocked the account: contact AWS Support",
}


def _permission_hint(request: Request, code: str, text: str, encoded: str) -> str:
    if code == "AuthFailure.ServiceLinkedRoleCreationNotPermitted":
        return "once per account: aws iam create-service-linked-role --aws-service-name spot.amazonaws.com"
    if code.startswith("AuthFailure"):
        where = f" {request.region}" if request.region else ""
        return f"check the credentials (aws sts get-caller-identity), and that the region{where} is enabled"
    if code in ("ExpiredToken", "ExpiredTokenException", "RequestExpired"):
        return "the credentials have expired, or this computer's clock is wrong: log in again (aws sso login)"
    if not any(word in code for word in ("Unauthorized", "AccessDenied")):
        return "check the access key and secret: aws sts get-caller-identity"
    found = _ACTION.search(text)
    action = found[1] if found else request.action
    if "service control policy" in text:
        hint = f"a service control policy of the organization forbids {action}: its administrator has to allow it"
    elif "explicit deny" in text:
        hint = f"a policy denies {action} explicitly: that statement has to be changed or taken away"
    else:
        hint = f"add to the caller's policy: {statement(action)}; all of it: `vmrun doctor --on ec2 --policy`"
    if encoded:
        hint += f"; the whole reason: aws sts decode-authorization-message --encoded-message {encoded}"
    return hint


def statement(action: str) -> str:
    """The statement of an IAM policy that allows one action, on one line."""
    return json.dumps({"Effect": "Allow", "Action": action, "Resource": "*"})


def _quota_hint(request: Request, code: str) -> str:
    quota = _quota_code(request, code)
    if quota not in EC2_QUOTA_NAMES:
        where = f" of {request.region}" if request.region else ""
        return f"ask for more in Service Quotas{where}, under Amazon EC2 or EBS"
    return raise_quota(quota, request.region)


def raise_quota(quota: str, region: str, vcpus: str | int = "VCPUS") -> str:
    """How to ask for more of a vCPU quota."""
    where = f" --region {region}" if region else ""
    return (
        f'raise the quota "{EC2_QUOTA_NAMES[quota]}": aws service-quotas request-service-quota-increase{where} '
        f"--service-code ec2 --quota-code {quota} --desired-value {vcpus}"
    )


def _config_hint(code: str, text: str) -> str:
    if code.startswith(("InvalidAMIID", "ParameterNotFound")):
        return "correct ec2.image, or leave it out for Ubuntu 24.04; an AMI exists in one region only"
    if code.startswith(("InvalidSubnet", "InvalidVpc", "DefaultVpcDoesNotExist", "VPCIdNotSpecified")):
        return "correct ec2.vpc and ec2.subnets, or run: vmrun init ec2"
    if code.startswith(("InvalidGroup", "InvalidSecurityGroup")):
        return "correct ec2.security_group, or run: vmrun init ec2"
    if "iamInstanceProfile" in text or "IamInstanceProfile" in text:
        return "correct ec2.instance_profile: the name or ARN of an instance profile, which is not that of its role"
    if code == "OperationNotPermitted":
        return "if it is protected against termination, take that away in the console"
    return "a key of [ec2] in vmrun.toml does not fit; vmrun doctor checks them"


#: Failures of the SDK itself by the name of their class: what they mean and what to do.
_NO_KEYS = "set AWS_PROFILE or ec2.profile, log in (aws sso login), or give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_LOGIN = "log in again: aws sso login"
_SDK: dict[str, tuple[_Meaning, str]] = {
    "NoCredentialsError": (_FORBIDDEN, _NO_KEYS),
    "PartialCredentialsError": (_FORBIDDEN, _NO_KEYS),
    "CredentialRetrievalError": (_FORBIDDEN, _NO_KEYS),
    "InvalidConfigError": (_FORBIDDEN, _NO_KEYS),
    "ProfileNotFound": (_WRONG, "correct ec2.profile or AWS_PROFILE: aws configure list-profiles"),
    "ConfigParseError": (_WRONG, "correct the AWS configuration file, ~/.aws/config"),
    "ConfigNotFound": (_WRONG, "correct AWS_CONFIG_FILE"),
    "UnauthorizedSSOTokenError": (_FORBIDDEN, _LOGIN),
    "SSOTokenLoadError": (_FORBIDDEN, _LOGIN),
    "SSOError": (_FORBIDDEN, _LOGIN),
    "TokenRetrievalError": (_FORBIDDEN, _LOGIN),
    "LoginError": (_FORBIDDEN, _LOGIN),
    "ParamValidationError": (_WRONG, "a key of [ec2] in vmrun.toml does not fit; vmrun doctor checks them"),
    "InvalidRegionError": (_WRONG, "correct ec2.regions"),
    "SSLError": (_DOWN, "check the time of this computer, and AWS_CA_BUNDLE if a proxy opens TLS"),
}


def failed(request: Request, kind: str, message: str) -> CloudError:
    """The error for a failure of the SDK, `kind` being the name of its class: no answer, or no credentials."""
    (fault, scope), hint = _SDK.get(kind, (_DOWN, "check the network, HTTPS_PROXY, and that ec2.regions are right"))
    where = f" in {request.region}" if request.region else ""
    return CloudError(
        f"{request.action}{where}: {' '.join(message.split())}", fault=fault, scope=scope, cloud_code=kind, hint=hint
    )


def reason_of(code: str, message: str) -> tuple[str, Fault | None]:
    """Why an instance ended, as a sentence, and what kind of failure it was; None for an end that was wanted."""
    if not code and not message:
        return "", None
    if code in _REASONS:
        fault = _REASONS[code]
    else:
        fault = Fault.unknown if code.startswith("Server.") else None
    text = message or code
    return (text if code in text or not code else f"{code}: {text}"), fault
