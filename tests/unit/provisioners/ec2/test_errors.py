"""What each error of EC2 means, and what its reader is told to do."""

from __future__ import annotations

import json

import pytest

from vmrun.core.clouds import CloudError, Fault, InstanceNotFound, Scope
from vmrun.provisioners.ec2.errors import Request, failed, reason_of, refused

RUN = Request("ec2:RunInstances", "us-east-1", "r6a.32xlarge")
TABLE = [
    ("InsufficientInstanceCapacity", "", Fault.stockout, Scope.offer),
    ("InsufficientHostCapacity", "", Fault.stockout, Scope.offer),
    ("InsufficientReservedInstanceCapacity", "", Fault.stockout, Scope.offer),
    ("ReservationCapacityExceeded", "", Fault.stockout, Scope.offer),
    ("UnfulfillableCapacity", "", Fault.stockout, Scope.offer),
    ("SpotMaxPriceTooLow", "", Fault.stockout, Scope.offer),
    ("InsufficientFreeAddressesInSubnet", "", Fault.stockout, Scope.zone),
    ("Unsupported", "not supported in your requested Availability Zone", Fault.not_offered, Scope.offer),
    ("InvalidParameterValue", "Invalid value 'r9.x' for InstanceType.", Fault.not_offered, Scope.offer),
    ("VcpuLimitExceeded", "", Fault.quota, Scope.bucket),
    ("MaxSpotInstanceCountExceeded", "", Fault.quota, Scope.bucket),
    ("InstanceLimitExceeded", "", Fault.quota, Scope.bucket),
    ("MaxFleetCountExceeded", "", Fault.quota, Scope.region),
    ("VolumeLimitExceeded", "", Fault.quota, Scope.region),
    ("AddressLimitExceeded", "", Fault.quota, Scope.region),
    ("RequestLimitExceeded", "", Fault.throttle, Scope.region),
    ("Throttling", "", Fault.throttle, Scope.region),
    ("EC2ThrottledException", "", Fault.throttle, Scope.region),
    ("UnauthorizedOperation", "", Fault.permission, Scope.cloud),
    ("AuthFailure", "", Fault.permission, Scope.cloud),
    ("AuthFailure.ServiceLinkedRoleCreationNotPermitted", "", Fault.permission, Scope.cloud),
    ("ExpiredToken", "", Fault.permission, Scope.cloud),
    ("AccessDenied", "", Fault.permission, Scope.cloud),
    ("OperationNotPermitted", "with an explicit deny in a service control policy", Fault.permission, Scope.cloud),
    ("OptInRequired", "", Fault.billing, Scope.cloud),
    ("PendingVerification", "", Fault.billing, Scope.cloud),
    ("InvalidParameterValue", "", Fault.config, Scope.cloud),
    ("InvalidParameterCombination", "", Fault.config, Scope.cloud),
    ("InvalidParameterCombination", "it is not possible with instance type m1.x", Fault.not_offered, Scope.offer),
    (
        "InvalidParameterCombination",
        "The specified instance type is not eligible for Free Tier.",
        Fault.billing,
        Scope.cloud,
    ),
    ("InvalidAMIID.NotFound", "", Fault.config, Scope.cloud),
    ("InvalidSubnetID.NotFound", "", Fault.config, Scope.cloud),
    ("IdempotentParameterMismatch", "", Fault.config, Scope.cloud),
    ("IdempotentInstanceTerminated", "", Fault.preempted, Scope.offer),
    ("InternalError", "", Fault.unavailable, Scope.region),
    ("Unavailable", "", Fault.unavailable, Scope.region),
    ("SomethingNew", "", Fault.unknown, Scope.offer),
    ("", "User data is limited to 16384 bytes", Fault.config, Scope.cloud),
]


@pytest.mark.parametrize(
    ("code", "message", "fault", "scope"), TABLE, ids=[f"{row[0]}-{row[3].value}" for row in TABLE]
)
def test_each_code_has_its_meaning_and_a_next_step(code: str, message: str, fault: Fault, scope: Scope) -> None:
    error = refused(RUN, code, message)

    assert (error.fault, error.scope, error.cloud_code) == (fault, scope, code)
    assert error.hint
    assert code in error.message
    assert "us-east-1" in error.message
    assert "RunInstances" in error.message


def test_an_account_on_the_free_plan_is_told_so() -> None:
    said = refused(RUN, "InvalidParameterCombination", "The specified instance type is not eligible for Free Tier.")
    assert "free plan" in said.hint


def test_an_answer_without_a_known_code_goes_by_its_status() -> None:
    assert refused(RUN, "Weird", "", 503).fault is Fault.unavailable
    assert refused(RUN, "Weird", "", 400).fault is Fault.unknown


def test_an_unknown_instance_is_not_found() -> None:
    for code in ("InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed"):
        assert isinstance(refused(RUN, code, "the instance ID 'i-1' does not exist"), InstanceNotFound)


@pytest.mark.parametrize(
    ("instance_type", "spot", "quota", "name"),
    [
        ("r6a.32xlarge", False, "L-1216C47A", "Running On-Demand Standard"),
        ("r6a.32xlarge", True, "L-34B43A08", "All Standard"),
        ("x2idn.32xlarge", False, "L-7295265B", "Running On-Demand X instances"),
    ],
)
def test_a_quota_is_named_with_the_command_that_raises_it(
    instance_type: str, spot: bool, quota: str, name: str
) -> None:
    error = refused(Request("ec2:RunInstances", "eu-west-1", instance_type, spot=spot), "VcpuLimitExceeded", "limit 32")

    assert error.bucket == quota
    assert name in error.hint
    assert f"--region eu-west-1 --service-code ec2 --quota-code {quota}" in error.hint


def test_the_spot_quota_is_the_spot_one_also_when_the_call_does_not_say() -> None:
    assert refused(RUN, "MaxSpotInstanceCountExceeded", "").bucket == "L-34B43A08"


def test_another_limit_is_named_as_ec2_does() -> None:
    assert refused(RUN, "VolumeLimitExceeded", "").bucket == "VolumeLimit"


DENIED = (
    "You are not authorized to perform this operation. User: arn:aws:iam::1:user/ann is not authorized to perform: "
    "ec2:CreateTags on resource: arn:aws:ec2:us-east-1:1:instance/* because no identity-based policy allows the "
    "ec2:CreateTags action. Encoded authorization failure message: AbC-123_x"
)


def test_a_missing_permission_is_given_with_the_statement_that_grants_it() -> None:
    error = refused(RUN, "UnauthorizedOperation", DENIED)

    start, end = error.hint.index("{"), error.hint.index("}") + 1
    assert json.loads(error.hint[start:end]) == {"Effect": "Allow", "Action": "ec2:CreateTags", "Resource": "*"}
    assert "--encoded-message AbC-123_x" in error.hint
    assert "AbC-123_x" not in error.message
    assert "arn:aws:iam::1:user/ann" in error.message


def test_what_no_policy_of_ones_own_can_change_is_said_so() -> None:
    organization = refused(RUN, "UnauthorizedOperation", "with an explicit deny in a service control policy")
    denied = refused(RUN, "UnauthorizedOperation", "with an explicit deny in an identity-based policy")

    assert "organization" in organization.hint
    assert "explicitly" in denied.hint


@pytest.mark.parametrize(
    ("kind", "fault", "scope", "word"),
    [
        ("NoCredentialsError", Fault.permission, Scope.cloud, "AWS_PROFILE"),
        ("ProfileNotFound", Fault.config, Scope.cloud, "ec2.profile"),
        ("UnauthorizedSSOTokenError", Fault.permission, Scope.cloud, "aws sso login"),
        ("EndpointConnectionError", Fault.unavailable, Scope.region, "network"),
        ("ReadTimeoutError", Fault.unavailable, Scope.region, "network"),
        ("ParamValidationError", Fault.config, Scope.cloud, "vmrun doctor"),
    ],
)
def test_failures_of_the_sdk_have_a_meaning_too(kind: str, fault: Fault, scope: Scope, word: str) -> None:
    error = failed(RUN, kind, "could not\n  do it")

    assert (error.fault, error.scope) == (fault, scope)
    assert word in error.hint
    assert error.message.endswith("could not do it")


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("Server.InsufficientInstanceCapacity", Fault.stockout),
        ("Server.SpotInstanceTermination", Fault.preempted),
        ("Client.VolumeLimitExceeded", Fault.quota),
        ("Client.InternalError", Fault.config),
        ("Client.InstanceInitiatedShutdown", None),
        ("Client.UserInitiatedShutdown", None),
        ("Server.SomethingNew", Fault.unknown),
        ("Client.SomethingNew", None),
    ],
)
def test_why_a_machine_ended(code: str, fault: Fault | None) -> None:
    text, found = reason_of(code, "it ended")

    assert found is fault
    assert text == f"{code}: it ended"
    assert reason_of(code, f"{code}: it ended")[0] == text


def test_nothing_is_said_of_a_machine_that_has_no_reason() -> None:
    assert reason_of("", "") == ("", None)


def test_errors_are_of_vmruns_tree() -> None:
    assert isinstance(refused(RUN, "Any", ""), CloudError)


def test_a_missing_permission_names_the_command_that_prints_the_whole_policy() -> None:
    text = "User: arn:aws:iam::1:user/me is not authorized to perform: ec2:RunInstances"
    error = refused(Request("ec2:RunInstances", "us-east-1"), "UnauthorizedOperation", text)
    assert "`vmrun doctor --on ec2 --policy`" in error.hint
