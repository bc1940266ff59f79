"""What Google answers, as it writes it, and what becomes of it: fault, reach, quota, next step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from vmrun.core.clouds import CloudError, Fault, Scope
from vmrun.provisioners.gce.errors import cloud_error, is_absent, is_taken, is_used, read_http, read_operation

from .world import PROJECT, ZONE, failed, refusal

PLACE = f"projects/{PROJECT}/zones/{ZONE}"
REGION = f"projects/{PROJECT}/regions/us-central1"


def of_http(code: int, reason: str, message: str, *, creating: bool = True, **more: Any) -> CloudError:
    _, document = refusal(code, reason, message, **more)
    return cloud_error(read_http(code, document), doing="instances.insert", project=PROJECT, creating=creating)


def of_operation(code: str, message: str, *, status: int = 0, **details: Any) -> CloudError:
    trouble = read_operation(failed(code, message, status=status, **details))
    assert trouble is not None
    return cloud_error(trouble, doing="instances.insert", project=PROJECT, creating=True)


def info(reason: str, **metadata: str) -> list[dict[str, Any]]:
    kind = "type.googleapis.com/google.rpc.ErrorInfo"
    return [{"@type": kind, "reason": reason, "domain": "googleapis.com", "metadata": metadata}]


@dataclass(frozen=True)
class Case:
    error: CloudError
    fault: Fault
    scope: Scope
    code: str
    hint: str
    bucket: str = ""
    name: str = field(default="")


def quota(metric: str, message: str, *, limit: float = 24, **dimensions: str) -> CloudError:
    facts = {
        "metricName": f"compute.googleapis.com/{metric.lower()}",
        "limitName": f"{metric.replace('_', '-')}-per-project-region",
        "dimensions": dimensions,
        "limit": limit,
    }
    return of_operation("QUOTA_EXCEEDED", message, status=403, quotaInfo=facts)


NO_ROOM = f"The zone '{PLACE}' does not have enough resources available to fulfill the request."
DISABLED = "Compute Engine API has not been used in project 12345 before or it is disabled. Enable it by visiting …"
CASES = {
    "stockout": Case(
        of_operation("ZONE_RESOURCE_POOL_EXHAUSTED", NO_ROOM, status=503),
        Fault.stockout,
        Scope.offer,
        "ZONE_RESOURCE_POOL_EXHAUSTED",
        "other zones",
    ),
    "stockout with details": Case(
        of_operation(
            "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS",
            NO_ROOM + " '(resource type:compute)' for machine type c4-highmem-144",
            errorInfo={"reason": "stockout", "domain": "compute.googleapis.com", "metadatas": {"vmType": "c4"}},
        ),
        Fault.stockout,
        Scope.offer,
        "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS",
        "other zones",
    ),
    "stockout told at once": Case(
        of_http(503, "insufficientCapacity", "No capacity"),
        Fault.stockout,
        Scope.offer,
        "insufficientCapacity",
        "zones",
    ),
    "addresses of the subnetwork": Case(
        of_operation("IP_SPACE_EXHAUSTED", f"IP space of '{REGION}/subnetworks/default' is exhausted."),
        Fault.stockout,
        Scope.region,
        "IP_SPACE_EXHAUSTED",
        "regions",
    ),
    "type not in zone": Case(
        of_operation(
            "RESOURCE_NOT_FOUND", f"The resource '{PLACE}/machineTypes/c4-highmem-144' was not found", status=404
        ),
        Fault.not_offered,
        Scope.offer,
        "RESOURCE_NOT_FOUND",
        "vmrun offers",
    ),
    "type not in zone, told at once": Case(
        of_http(
            400,
            "invalid",
            f"Invalid value for field 'resource.machineType': '{PLACE}/machineTypes/x'. The referenced resource does "
            "not exist.",
        ),
        Fault.not_offered,
        Scope.offer,
        "invalid",
        "vmrun offers",
    ),
    "disk that does not go with the type": Case(
        of_operation(
            "UNSUPPORTED_OPERATION", "[pd-balanced] features are not compatible for creating instance.", status=400
        ),
        Fault.not_offered,
        Scope.offer,
        "UNSUPPORTED_OPERATION",
        "vmrun offers",
    ),
    "condition": Case(
        of_http(412, "conditionNotMet", "The zone does not support this."),
        Fault.not_offered,
        Scope.offer,
        "conditionNotMet",
        "zone",
    ),
    "quota of a family": Case(
        quota("N2_CPUS", "Quota 'N2_CPUS' exceeded.  Limit: 24.0 in region us-central1.", region="us-central1"),
        Fault.quota,
        Scope.bucket,
        "QUOTA_EXCEEDED",
        "N2_CPUS in us-central1 at https://console.cloud.google.com/iam-admin/quotas?project=acme-1",
        "N2_CPUS",
    ),
    "quota of a newer family": Case(
        quota(
            "CPUS_PER_VM_FAMILY",
            "Quota 'CPUS_PER_VM_FAMILY' exceeded.  Limit: 0.0 in region us-central1.",
            region="us-central1",
            vm_family="C4",
        ),
        Fault.quota,
        Scope.bucket,
        "QUOTA_EXCEEDED",
        "CPUS_PER_VM_FAMILY of family C4 in us-central1",
        "CPUS_PER_VM_FAMILY/C4",
    ),
    "quota of the whole project": Case(
        quota("CPUS_ALL_REGIONS", "Quota 'CPUS_ALL_REGIONS' exceeded.  Limit: 32.0 globally."),
        Fault.quota,
        Scope.cloud,
        "QUOTA_EXCEEDED",
        "CPUS_ALL_REGIONS",
        "CPUS_ALL_REGIONS",
    ),
    "quota of disks": Case(
        quota(
            "SSD_TOTAL_GB", "Quota 'SSD_TOTAL_GB' exceeded.  Limit: 500.0 in region us-central1.", region="us-central1"
        ),
        Fault.quota,
        Scope.region,
        "QUOTA_EXCEEDED",
        "SSD_TOTAL_GB",
        "SSD_TOTAL_GB",
    ),
    "quota told at once": Case(
        of_http(403, "quotaExceeded", "Quota 'IN_USE_ADDRESSES' exceeded.  Limit: 8.0 in region us-central1."),
        Fault.quota,
        Scope.region,
        "quotaExceeded",
        "IN_USE_ADDRESSES in us-central1",
        "IN_USE_ADDRESSES",
    ),
    "too many requests": Case(
        of_http(
            403,
            "rateLimitExceeded",
            "Quota exceeded for quota metric 'Queries' and limit 'Queries per minute' of service 'compute…'",
            status="RESOURCE_EXHAUSTED",
            details=info("RATE_LIMIT_EXCEEDED", service="compute.googleapis.com"),
        ),
        Fault.throttle,
        Scope.region,
        "RATE_LIMIT_EXCEEDED",
        "wait a minute",
    ),
    "too many operations": Case(
        of_operation("RESOURCE_OPERATION_RATE_EXCEEDED", "Operation rate exceeded for resource", status=429),
        Fault.throttle,
        Scope.region,
        "RESOURCE_OPERATION_RATE_EXCEEDED",
        "wait a minute",
    ),
    "status 429 without a reason": Case(
        of_http(429, "", "slow down"), Fault.throttle, Scope.region, "", "wait a minute"
    ),
    "permission": Case(
        of_http(403, "forbidden", f"Required 'compute.instances.create' permission for '{PLACE}/instances/x'"),
        Fault.permission,
        Scope.cloud,
        "forbidden",
        "grant compute.instances.create on project acme-1",
    ),
    "permission, in the newer form": Case(
        of_http(
            403,
            "forbidden",
            "Permission 'compute.regions.get' denied on resource (or it may not exist).",
            status="PERMISSION_DENIED",
            details=info("IAM_PERMISSION_DENIED", permission="compute.regions.get", resource="x"),
        ),
        Fault.permission,
        Scope.cloud,
        "IAM_PERMISSION_DENIED",
        "grant compute.regions.get on project acme-1",
    ),
    "service account": Case(
        of_http(400, "serviceAccountAccessDenied", "The user does not have access to service account 'vm@acme'."),
        Fault.permission,
        Scope.cloud,
        "serviceAccountAccessDenied",
        "roles/iam.serviceAccountUser",
    ),
    "API off": Case(
        of_http(
            403,
            "accessNotConfigured",
            DISABLED,
            status="PERMISSION_DENIED",
            details=info("SERVICE_DISABLED", service="compute.googleapis.com", consumer="projects/12345"),
        ),
        Fault.permission,
        Scope.cloud,
        "SERVICE_DISABLED",
        "gcloud services enable compute.googleapis.com --project=acme-1",
    ),
    "not logged in": Case(
        of_http(401, "authError", "Request had invalid authentication credentials.", status="UNAUTHENTICATED"),
        Fault.permission,
        Scope.cloud,
        "authError",
        "gcloud auth application-default login",
    ),
    "scopes of the token": Case(
        of_http(
            403,
            "insufficientPermissions",
            "Request had insufficient authentication scopes.",
            details=info("ACCESS_TOKEN_SCOPE_INSUFFICIENT"),
        ),
        Fault.permission,
        Scope.cloud,
        "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
        "cloud-platform",
    ),
    "policy: no public address": Case(
        of_http(
            412,
            "conditionNotMet",
            "Constraint constraints/compute.vmExternalIpAccess violated for project 12345. Add instance to the "
            "constraint to use external IP with it.",
        ),
        Fault.permission,
        Scope.cloud,
        "constraints/compute.vmExternalIpAccess",
        "gce.public_ip = false",
    ),
    "policy: OS Login": Case(
        of_operation("CONDITION_NOT_MET", "Constraint constraints/compute.requireOsLogin violated for project 12345."),
        Fault.permission,
        Scope.cloud,
        "constraints/compute.requireOsLogin",
        "OS Login",
    ),
    "policy: another": Case(
        of_http(
            412, "conditionNotMet", "Constraint constraints/compute.restrictVpcPeering violated for project 12345."
        ),
        Fault.permission,
        Scope.cloud,
        "constraints/compute.restrictVpcPeering",
        "constraints/compute.restrictVpcPeering for acme-1",
    ),
    "billing": Case(
        of_http(
            403, "accessNotConfigured", "This API method requires billing to be enabled. Please enable billing on …"
        ),
        Fault.billing,
        Scope.cloud,
        "accessNotConfigured",
        "gcloud billing projects link acme-1",
    ),
    "billing, in the newer form": Case(
        of_http(403, "forbidden", "Billing is off.", details=info("BILLING_DISABLED", consumer="projects/12345")),
        Fault.billing,
        Scope.cloud,
        "BILLING_DISABLED",
        "gcloud billing projects link acme-1",
    ),
    "image": Case(
        of_http(404, "notFound", "The resource 'projects/ubuntu-os-cloud/global/images/family/x' was not found"),
        Fault.config,
        Scope.cloud,
        "notFound",
        "check image",
    ),
    "network": Case(
        of_http(
            400,
            "invalid",
            "Invalid value for field 'resource.networkInterfaces[0].network': 'global/networks/default'. The "
            "referenced network resource cannot be found.",
        ),
        Fault.config,
        Scope.cloud,
        "invalid",
        "vmrun init gce",
    ),
    "subnetwork of one region": Case(
        of_http(404, "notFound", f"The resource '{REGION}/subnetworks/inner' was not found"),
        Fault.config,
        Scope.region,
        "notFound",
        "gce.subnetwork",
    ),
    "a field that is wrong": Case(
        of_http(400, "invalid", "Invalid value for field 'resource.labels': 'X'."),
        Fault.config,
        Scope.cloud,
        "invalid",
        "[gce]",
    ),
    "failure inside": Case(
        of_http(503, "backendError", "Backend error"), Fault.unavailable, Scope.region, "backendError", "try again"
    ),
    "failure inside, afterwards": Case(
        of_operation("INTERNAL_ERROR", "Internal error. Please try again or contact Google Support."),
        Fault.unavailable,
        Scope.region,
        "INTERNAL_ERROR",
        "try again",
    ),
    "failure of what stands between": Case(
        cloud_error(read_http(502, None), doing="instances.insert", creating=True),
        Fault.unavailable,
        Scope.region,
        "",
        "try again",
    ),
    "unheard of": Case(
        of_operation("FLUX_CAPACITOR_MISALIGNED", "1.21 GW needed"),
        Fault.unknown,
        Scope.offer,
        "FLUX_CAPACITOR_MISALIGNED",
        "look the code up",
    ),
    "unheard of, with a status": Case(
        of_operation("FLUX_MISALIGNED", "1.21 GW needed", status=400),
        Fault.unknown,
        Scope.offer,
        "FLUX_MISALIGNED",
        "look the code up",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_each_error_is_judged_and_says_what_to_do(case: Case) -> None:
    error = case.error

    assert (error.fault, error.scope, error.cloud_code, error.bucket) == (
        case.fault,
        case.scope,
        case.code,
        case.bucket,
    )
    assert case.hint in error.hint
    assert error.message.startswith("instances.insert: ")
    assert len(error.message) > len("instances.insert: ")


@pytest.mark.parametrize("fault", sorted(set(Fault) - {Fault.preempted, Fault.name_taken}, key=str))
def test_every_fault_comes_of_some_error(fault: Fault) -> None:
    assert any(case.error.fault is fault for case in CASES.values())


@pytest.mark.parametrize(
    "document",
    [None, [], "oops", {}, {"error": None}, {"error": "invalid_grant"}, {"error": {"errors": "x", "details": 3}}],
)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 418, 429, 500, 503])
def test_a_body_of_any_form_is_an_error_with_a_hint(status: int, document: Any) -> None:
    error = cloud_error(read_http(status, document), doing="zones.get")

    assert error.message
    assert error.hint
    assert (error.fault is Fault.unavailable) == (status >= 500)


@pytest.mark.parametrize(
    "operation", [{}, {"status": "DONE"}, {"status": "RUNNING", "error": {}}, {"error": {"errors": []}}]
)
def test_an_operation_without_errors_has_not_failed(operation: dict[str, Any]) -> None:
    assert read_operation(operation) is None


def test_an_operation_that_only_has_a_status_has_failed() -> None:
    trouble = read_operation({"status": "DONE", "httpErrorStatusCode": 503, "httpErrorMessage": "SERVICE UNAVAILABLE"})

    assert trouble is not None
    assert cloud_error(trouble, doing="x").fault is Fault.unavailable


def test_only_the_machine_itself_may_be_absent() -> None:
    """A wrong project or zone must not pass for a machine that is gone."""
    gone = of_http(404, "notFound", f"The resource '{PLACE}/instances/vmrun-a-b' was not found", creating=False)
    assert is_absent(gone, "vmrun-a-b")
    assert not is_absent(gone, "vmrun-a")
    assert not is_absent(of_http(404, "notFound", f"The resource 'projects/{PROJECT}' was not found"), "vmrun-a-b")
    assert not is_absent(of_http(403, "forbidden", f"Required 'x.y.z' permission for '{PLACE}/instances/v'"), "v")


def test_taken_and_used_names_are_known_in_both_forms() -> None:
    assert is_taken(of_http(409, "alreadyExists", "exists"))
    assert is_taken(of_operation("RESOURCE_ALREADY_EXISTS", "exists"))
    assert not is_taken(of_http(409, "resourceInUseByAnotherResource", "used"))
    assert is_used(of_http(400, "resourceInUseByAnotherResource", "used"))
    assert not is_used(of_http(409, "alreadyExists", "exists"))


def test_a_long_message_is_cut_and_keeps_its_beginning() -> None:
    error = of_http(500, "backendError", "x" * 10_000)
    assert len(error.message) == 2000
