"""Every trouble that the double of Compute Engine can be told to make, as the SDK meets it."""

from __future__ import annotations

import json
import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from googleapiclient.errors import HttpError

from tests.clouds.double import Inventory
from tests.clouds.gce_sdk import ZONE, Cloud, until
from tests.clouds.trouble import Rule, Trouble

INSERT = "compute.instances.insert"


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    opened = Cloud()
    yield opened
    opened.close()


def at_once(cloud: Cloud) -> tuple[int, str, str]:
    """Status, first reason, and the reason in the details, of a create call that is refused."""
    with pytest.raises(HttpError) as caught:
        cloud.insert("vm-1")
    error = caught.value
    details: Any = error.error_details
    if isinstance(details, str):
        return error.resp.status, "", details
    rich = [one.get("reason", "") for one in details if "@type" in one]
    plain = [one["reason"] for one in details if "@type" not in one]
    return error.resp.status, (plain or [""])[0], (rich or [""])[0]


def later(cloud: Cloud) -> dict[str, Any]:
    """The error of the operation of a create call that is accepted."""
    return cloud.done(cloud.insert("vm-1"))["error"]["errors"][0]


@pytest.mark.parametrize(
    ("trouble", "way", "code"),
    [
        (Trouble.stockout, 0, "ZONE_RESOURCE_POOL_EXHAUSTED"),
        (Trouble.stockout, 1, "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS"),
        (Trouble.quota, 0, "QUOTA_EXCEEDED"),
        (Trouble.quota, 2, "QUOTA_EXCEEDED"),
        (Trouble.not_offered, 1, "UNSUPPORTED_OPERATION"),
        (Trouble.not_offered, 2, "RESOURCE_NOT_FOUND"),
        (Trouble.throttle, 2, "RESOURCE_OPERATION_RATE_EXCEEDED"),
        (Trouble.unknown, 1, "FLUX_CAPACITOR_DISCHARGED"),
    ],
)
def test_troubles_that_an_operation_tells(cloud: Cloud, trouble: Trouble, way: int, code: str) -> None:
    cloud.trouble(trouble, INSERT, size=way)
    error = later(cloud)
    assert error["code"] == code
    assert error["message"]
    assert cloud.double.inventory() == Inventory()
    assert cloud.made("vm-1")["status"] == "RUNNING"


@pytest.mark.parametrize(
    ("trouble", "way", "status", "reason"),
    [
        (Trouble.stockout, 2, 503, "stockout"),
        (Trouble.quota, 1, 403, "quotaExceeded"),
        (Trouble.not_offered, 0, 400, "invalid"),
        (Trouble.permission, 0, 403, "forbidden"),
        (Trouble.permission, 1, 403, "IAM_PERMISSION_DENIED"),
        (Trouble.permission, 2, 403, "SERVICE_DISABLED"),
        (Trouble.permission, 3, 412, "conditionNotMet"),
        (Trouble.billing, 0, 403, "BILLING_DISABLED"),
        (Trouble.throttle, 0, 403, "RATE_LIMIT_EXCEEDED"),
        (Trouble.throttle, 1, 429, "rateLimitExceeded"),
        (Trouble.config, 0, 400, "invalid"),
        (Trouble.config, 1, 400, "invalid"),
        (Trouble.unavailable, 0, 503, "backendError"),
        (Trouble.unavailable, 1, 500, "internalError"),
        (Trouble.unknown, 0, 418, "fluxCapacitorDischarged"),
    ],
)
def test_troubles_that_the_answer_tells(cloud: Cloud, trouble: Trouble, way: int, status: int, reason: str) -> None:
    cloud.trouble(trouble, INSERT, size=way)
    found, plain, rich = at_once(cloud)
    assert found == status
    assert reason in (plain, rich)
    assert cloud.calls(INSERT) == [rich or plain]
    assert cloud.double.inventory() == Inventory()
    assert cloud.made("vm-1")["status"] == "RUNNING"


def test_a_proxy_may_answer_instead(cloud: Cloud) -> None:
    cloud.trouble(Trouble.unavailable, INSERT, size=2)
    assert at_once(cloud)[0] == 502


@pytest.mark.parametrize("trouble", [Trouble.permission, Trouble.billing, Trouble.throttle, Trouble.unavailable])
def test_any_call_can_be_refused(cloud: Cloud, trouble: Trouble) -> None:
    for operation, call in (
        ("compute.instances.list", cloud.names),
        ("compute.instances.get", lambda: cloud.get("vm-1")),
        ("compute.instances.delete", lambda: cloud.delete("vm-1")),
        ("compute.zones.list", lambda: cloud.api().zones().list(project=cloud.project).execute()),
    ):
        cloud.trouble(trouble, operation)
        with pytest.raises(HttpError) as caught:
            call()
        assert caught.value.resp.status in (403, 503)


def test_the_permission_that_is_denied_is_named(cloud: Cloud) -> None:
    cloud.trouble(Trouble.permission, "compute.instances.delete")
    with pytest.raises(HttpError, match=r"'compute\.instances\.delete' permission for .*instances/vm-1"):
        cloud.delete("vm-1")


def test_a_rule_holds_for_its_type_and_its_place_only(cloud: Cloud) -> None:
    cloud.trouble(Trouble.stockout, instance_type="e2-standard-2", zone="us-east1-b", times=-1)
    cloud.trouble(Trouble.quota, region="us-west1", skip=1)
    assert cloud.made("vm-1")["status"] == "RUNNING"
    assert "error" in cloud.done(cloud.insert("vm-1", zone="us-east1-b"))
    assert cloud.made("vm-1", zone="us-west1-a")["status"] == "RUNNING"
    assert "error" in cloud.done(cloud.insert("vm-2", zone="us-west1-a"))


def test_accepted_shown_and_then_failed(cloud: Cloud) -> None:
    cloud.trouble(Trouble.accepted_then_failed, seconds=10)
    operation = cloud.insert("vm-1", request_id=str(uuid.UUID(int=9)))
    assert operation["status"] == "RUNNING"
    assert cloud.status("vm-1") == "PROVISIONING"
    assert cloud.names() == ["vm-1"]
    cloud.clock.sleep(5)
    assert cloud.status("vm-1") == "STAGING"
    cloud.clock.sleep(5)

    done = cloud.done(operation)

    assert done["error"]["errors"][0]["code"] == "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS"
    assert cloud.double.inventory() == Inventory()
    again = cloud.insert("vm-1", request_id=str(uuid.UUID(int=9)))
    assert again["name"] == done["name"]
    assert "error" in again
    assert cloud.double.inventory() == Inventory()


def test_a_stockout_shows_no_instance() -> None:
    slow = Cloud(pace=0.3)
    try:
        slow.trouble(Trouble.stockout)
        operation = slow.insert("vm-1")
        assert slow.names() == []
        slow.clock.sleep(0.3)
        assert "error" in slow.done(operation)
    finally:
        slow.close()


def test_a_lost_reply_is_of_a_call_that_was_done_once(cloud: Cloud) -> None:
    request_id = str(uuid.UUID(int=10))
    cloud.trouble(Trouble.reply_lost, INSERT)
    with pytest.raises(ConnectionError):
        cloud.insert("vm-1", request_id=request_id)
    assert cloud.calls(INSERT) == ["cut"]
    until(lambda: cloud.double.inventory().instances == {f"{ZONE}/vm-1": "RUNNING"})

    done = cloud.done(cloud.insert("vm-1", request_id=request_id))

    assert "error" not in done
    assert done["targetId"] == cloud.get("vm-1")["id"]
    assert len(cloud.double.inventory().instances) == 1


def test_a_lost_reply_without_a_request_id_meets_its_own_name(cloud: Cloud) -> None:
    cloud.trouble(Trouble.reply_lost, INSERT)
    with pytest.raises(ConnectionError):
        cloud.insert("vm-1")
    with pytest.raises(HttpError, match="already exists"):
        cloud.insert("vm-1")


def test_a_lost_request_was_never_done(cloud: Cloud) -> None:
    cloud.trouble(Trouble.request_lost, INSERT)
    with pytest.raises(ConnectionError):
        cloud.insert("vm-1")
    assert cloud.calls(INSERT) == ["cut"]
    assert cloud.double.inventory() == Inventory()
    assert cloud.made("vm-1")["status"] == "RUNNING"


def test_lost_replies_of_other_calls(cloud: Cloud) -> None:
    cloud.made("vm-1")
    cloud.trouble(Trouble.reply_lost, "compute.instances.delete")
    with pytest.raises(ConnectionError):
        cloud.delete("vm-1")
    until(lambda: cloud.double.inventory() == Inventory())


def test_calls_are_recorded_with_what_they_were_about(cloud: Cloud) -> None:
    request_id = str(uuid.UUID(int=11))
    cloud.done(cloud.insert("vm-1", request_id=request_id))
    call = next(call for call in cloud.script.calls if call.operation == INSERT)
    assert call.outcome == "ok"
    assert call.about == {
        "zone": ZONE,
        "region": "us-central1",
        "name": "vm-1",
        "instance_type": "e2-standard-2",
        "token": request_id,
    }
    cloud.script.clear()
    assert cloud.script.calls == []


def test_a_machine_that_does_not_boot_is_a_fault_of_the_double() -> None:
    cloud = Cloud()

    def boot(name: str, user_data: str, *, vcpus: int, memory: int) -> str:
        raise OSError("no engine")

    cloud.machines.boot = boot  # type: ignore[method-assign]
    done = cloud.done(cloud.insert("vm-1"))
    assert done["error"]["errors"][0]["code"] == "INTERNAL_ERROR"
    assert cloud.double.inventory() == Inventory()
    with pytest.raises(AssertionError, match="no engine"):
        cloud.close()


def test_the_hands_are_there_over_http_too(cloud: Cloud) -> None:
    cloud.made("vm-1")

    def post(verb: str, **given: Any) -> Any:
        body = json.dumps(given).encode()
        request = urllib.request.Request(f"{cloud.double.endpoint}/_double/{verb}", body, method="POST")
        with urllib.request.urlopen(request) as answer:
            return json.loads(answer.read())

    post("power-off", name="vm-1")
    assert cloud.status("vm-1") == "TERMINATED"
    post("trouble", trouble="stockout", times=1)
    assert cloud.script.pick(INSERT, Trouble.stockout) == Rule(Trouble.stockout, times=0)
