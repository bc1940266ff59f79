"""What each error of IBM's becomes: the kind decides what is tried next, the scope what is left out."""

from __future__ import annotations

import json

import pytest

from vmrun.core.clouds import Fault, Scope
from vmrun.provisioners.ibm import errors
from vmrun.provisioners.ibm.errors import Answer, from_answer, of_reasons

from .bodies import instance, refusal

DOING = "create_instance in us-south"


@pytest.mark.parametrize(
    ("status", "body", "fault", "scope"),
    [
        (400, refusal("over_quota", "vCPUs"), Fault.quota, Scope.bucket),
        (400, refusal("over_quota", "quota of floating IPs"), Fault.quota, Scope.zone),
        (429, refusal("rate_limit_exceeded"), Fault.throttle, Scope.region),
        (429, None, Fault.throttle, Scope.region),
        (403, refusal("not_authorized"), Fault.permission, Scope.cloud),
        (401, "", Fault.permission, Scope.cloud),
        (
            400,
            {"errorCode": "BXNIM0415E", "errorMessage": "Provided API key could not be found."},
            Fault.permission,
            Scope.cloud,
        ),
        (403, refusal("account_disabled"), Fault.billing, Scope.cloud),
        (400, refusal("bad_field", "not available in zone", target="profile.name"), Fault.not_offered, Scope.offer),
        (404, refusal("instance_profile_not_found"), Fault.not_offered, Scope.offer),
        (400, refusal("insufficient_capacity"), Fault.stockout, Scope.offer),
        (400, refusal("bad_field", "no image", target="image.id"), Fault.config, Scope.cloud),
        (404, refusal("not_found"), Fault.config, Scope.cloud),
        (400, refusal("volume_profile_not_found", target="volume.profile"), Fault.config, Scope.cloud),
        (409, refusal("instance_conflict"), Fault.unavailable, Scope.region),
        (503, refusal("backend_service_unavailable"), Fault.unavailable, Scope.region),
        (502, "<html>", Fault.unavailable, Scope.region),
        (201, "half a docum", Fault.unavailable, Scope.region),
        (422, refusal("flux_capacitor_drained"), Fault.unknown, Scope.offer),
    ],
)
def test_an_answer_becomes_the_kind_and_scope_that_failover_goes_by(
    status: int, body: object, fault: Fault, scope: Scope
) -> None:
    error = from_answer(Answer(status, body), DOING)

    assert (error.fault, error.scope) == (fault, scope)
    assert error.status == status
    assert error.hint


def test_an_error_tells_what_was_refused_why_and_the_trace_that_support_asks_for() -> None:
    error = from_answer(Answer(400, refusal("over_quota", "vCPUs of the region")), DOING)

    assert error.message == (
        "IBM Cloud refused create_instance in us-south: vCPUs of the region (over_quota) [trace 1f2e3d4c]"
    )
    assert (error.cloud_code, error.bucket) == ("over_quota", "vCPU per region")
    assert "vCPU per region" in error.hint


def test_the_error_of_an_inner_service_is_the_one_that_counts() -> None:
    inner = json.dumps({"errors": [{"code": "validation_unique_failed", "message": "taken"}], "trace": "x"})
    error = from_answer(Answer(400, refusal("bad_field", f"Handler Error: Status=400, JSON={inner}")), DOING)

    assert error.cloud_code == "validation_unique_failed"
    assert error.name_taken


@pytest.mark.parametrize(
    ("status", "code", "message", "taken"),
    [
        (400, "validation_unique_failed", "Provided Name (a) is not unique", True),
        (409, "duplicate_error", "", True),
        (400, "volume_name_duplicate", 'Volume with name "a" already exists', True),
        (400, "bad_field", "The name is not unique", True),
        (400, "bad_field", "The name must match", False),
        (403, "validation_unique_failed", "", False),
        (500, "duplicate_error", "", False),
    ],
)
def test_a_taken_name_is_known_whatever_code_says_so(status: int, code: str, message: str, taken: bool) -> None:
    assert from_answer(Answer(status, refusal(code, message)), DOING).name_taken is taken


def test_a_server_that_names_a_pause_is_heard() -> None:
    assert from_answer(Answer(429, None, retry_after=7.0), DOING).retry_after == 7.0


@pytest.mark.parametrize("body", [None, [], "text", 7, {"errors": "x"}, {"errors": [7]}, {"errors": []}])
def test_a_body_of_any_shape_is_an_error_and_not_a_crash(body: object) -> None:
    assert from_answer(Answer(400, body), DOING).fault is Fault.config


def test_without_an_answer_nothing_is_known() -> None:
    error = errors.no_answer("ReadTimeout", DOING)

    assert (error.fault, error.status) == (Fault.unavailable, 0)


def reason(code: str) -> dict[str, object]:
    return {"code": code, "message": f"because of {code}"}


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, None),
        ({"status": "failed", "status_reasons": [reason("cannot_start_capacity")]}, Fault.stockout),
        ({"status": "stopped", "status_reasons": [reason("cannot_start_storage")]}, Fault.stockout),
        ({"status": "failed", "status_reasons": [reason("cannot_start")]}, Fault.stockout),
        ({"status": "stopped", "status_reasons": [reason("stopped_by_preemption")]}, Fault.preempted),
        ({"status": "stopped", "status_reasons": [reason("stopped_by_host_failure")]}, Fault.unavailable),
        ({"status": "stopped", "status_reasons": [reason("stopped_for_image_creation")]}, None),
        ({"lifecycle_reasons": [reason("pending_registration")], "lifecycle_state": "pending"}, None),
        ({"lifecycle_reasons": [reason("failed_registration")], "lifecycle_state": "failed"}, Fault.unavailable),
        ({"lifecycle_reasons": [reason("resource_suspended_by_provider")]}, Fault.billing),
        ({"status": "failed"}, Fault.unavailable),
    ],
)
def test_why_an_instance_did_not_come_up_is_read_from_it(changes: dict[str, object], fault: Fault | None) -> None:
    text, found = of_reasons(instance(**changes))

    assert found is fault
    assert bool(text) == (fault is not None)
