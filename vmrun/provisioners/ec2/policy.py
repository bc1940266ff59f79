"""The least rights that vmrun needs on AWS, as policies of IAM. Pure."""

from __future__ import annotations

import json
from typing import Any

from vmrun.core.clouds import TAG_OWNER

from .config import Ec2Config
from .images import parameter_path

#: What is only looked at: EC2 cannot narrow these to resources.
LOOKS = (
    "ec2:DescribeAddresses",
    "ec2:DescribeImages",
    "ec2:DescribeInstanceTypeOfferings",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeInstances",
    "ec2:DescribeKeyPairs",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSpotInstanceRequests",
    "ec2:DescribeSpotPriceHistory",
    "ec2:DescribeSubnets",
    "ec2:DescribeVolumes",
    "ec2:DescribeVpcs",
)
#: What ends a machine, reads its console, or tidies up what is left of it.
_ENDS = (
    "ec2:CancelSpotInstanceRequests",
    "ec2:DeleteKeyPair",
    "ec2:DeleteNetworkInterface",
    "ec2:DeleteVolume",
    "ec2:GetConsoleOutput",
    "ec2:ReleaseAddress",
    "ec2:TerminateInstances",
)
_MADE = ("instance", "network-interface", "spot-instances-request", "volume")
_SPOT = "spot.amazonaws.com"


def partition(region: str) -> str:
    """The first part of names in a region: most of the world, China, or the government of the USA."""
    return "aws-cn" if region.startswith("cn-") else "aws-us-gov" if region.startswith("us-gov-") else "aws"


def launcher(config: Ec2Config, store_url: str = "") -> str:
    """The policy for who submits jobs with this configuration and store."""
    arn = f"arn:{partition(config.regions[0])}"
    statements = [
        _statement("Look", LOOKS, "*", {"StringEquals": {"aws:RequestedRegion": sorted(config.regions)}}),
        _statement("LookAtQuotasAndPrices", ("pricing:GetProducts", "servicequotas:GetServiceQuota"), "*"),
        *_image(config, arn),
        # Nothing can be made without the owner's tag …
        _statement("Make", ("ec2:RunInstances",), [f"{arn}:ec2:*:*:{kind}/*" for kind in _MADE], _tagged("Request")),
        _statement("MakeFrom", ("ec2:RunInstances",), _made_from(config, arn)),
        _statement(
            "TagWhatIsMade",
            ("ec2:CreateTags",),
            [f"{arn}:ec2:*:*:{kind}/*" for kind in _MADE],
            {"StringEquals": {"ec2:CreateAction": "RunInstances"}},
        ),
        # … and nothing ended that does not bear it.
        _statement("End", _ENDS, f"{arn}:ec2:*:*:*", _tagged("Resource")),
        _statement(
            "FirstSpotMachine",
            ("iam:CreateServiceLinkedRole",),
            f"{arn}:iam::*:role/aws-service-role/{_SPOT}/AWSServiceRoleForEC2Spot",
            {"StringEquals": {"iam:AWSServiceName": _SPOT}},
        ),
        *_store(config, arn, store_url),
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, indent=2)


def store_access(region: str, url: str) -> list[dict[str, Any]]:
    """What a store at s3://bucket/prefix needs: the objects under the prefix, and their names."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    prefix = prefix.strip("/")
    where = f"arn:{partition(region)}:s3:::{bucket}"
    names = {"StringLike": {"s3:prefix": [f"{prefix}/*", prefix]}} if prefix else None
    return [
        _statement("ListTheStore", ("s3:ListBucket",), where, names),
        _statement(
            "UseTheStore",
            ("s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:PutObject"),
            f"{where}/{prefix}/*" if prefix else f"{where}/*",
        ),
    ]


def _image(config: Ec2Config, arn: str) -> list[dict[str, Any]]:
    if config.image and not config.image.startswith("ssm:"):
        return []
    paths = sorted({parameter_path(config.image, arch) for arch in ("x86_64", "arm64")})
    account = "" if paths[0].startswith("/aws/service/") else "*"
    return [
        _statement(
            "FindTheImage",
            ("ssm:GetParameter",),
            [f"{arn}:ssm:*:{account}:parameter/{path.strip('/')}" for path in paths],
        )
    ]


def _made_from(config: Ec2Config, arn: str) -> list[str]:
    image = config.image if config.image.startswith("ami-") else "*"
    group = config.security_group if config.security_group.startswith("sg-") else "*"
    named = config.subnets and all(name.startswith("subnet-") for name in config.subnets)
    return [
        f"{arn}:ec2:*::image/{image}",
        f"{arn}:ec2:*:*:security-group/{group}",
        *(f"{arn}:ec2:*:*:subnet/{name}" for name in (config.subnets if named else ("*",))),
    ]


def _store(config: Ec2Config, arn: str, url: str) -> list[dict[str, Any]]:
    """For the machines' way to the store: a role to hand on, or rights to hand out for a short while."""
    found = store_access(config.regions[0], url) if url.startswith("s3://") else []
    if config.instance_profile:
        name = config.instance_profile.rpartition("/")[2]
        passed = {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}
        return [*found, _statement("GiveTheRole", ("iam:PassRole",), f"{arn}:iam::*:role/{name}", passed)]
    if not found:
        return []
    if config.store_role:
        return [*found, _statement("LendTheRole", ("sts:AssumeRole",), config.store_role)]
    return [*found, _statement("LendRights", ("sts:GetFederationToken",), f"{arn}:sts::*:federated-user/vmrun")]


def _tagged(which: str) -> dict[str, Any]:
    """Only what bears the owner's tag: in the request, or on the resource."""
    return {"Null": {f"aws:{which}Tag/{TAG_OWNER}": "false"}}


def _statement(
    name: str, actions: tuple[str, ...], resource: str | list[str], condition: dict[str, Any] | None = None
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "Sid": f"Vmrun{name}",
        "Effect": "Allow",
        "Action": list(actions),
        "Resource": resource,
    }
    return found if condition is None else {**found, "Condition": condition}
