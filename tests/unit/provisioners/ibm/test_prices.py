"""Prices as the Global Catalog tells them, for both ways in which IBM meters machines."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clouds.ibm.profiles import body, profiles
from vmrun.provisioners.ibm import prices

CPU, MEMORY, DISK = "part-is.cpu-hours", "part-is.ram-hours", "part-is.instance-storage-hours"


def metric(identifier: str, price: float, **more: Any) -> dict[str, Any]:
    euros = {"country": "DEU", "currency": "EUR", "prices": [{"quantity_tier": 1, "price": price * 2}]}
    dollars = {"country": "USA", "currency": "USD", "prices": [{"quantity_tier": 1, "price": price}]}
    return {"metric_id": identifier, "charge_unit_quantity": 1, "amounts": [euros, dollars], **more}


def deployments(*metrics: dict[str, Any], region: str = "us-south") -> list[dict[str, Any]]:
    elsewhere = {"deployment_location": "eu-de", "metrics": [metric(CPU, 9), metric(MEMORY, 9)]}
    return [elsewhere, {"deployment_location": region, "metrics": list(metrics)}]


def size(name: str) -> Any:
    found = prices.size_of(body(profiles()[name], "us-south", "http://x/v1", "2026-06-30"), "us-south")
    assert found is not None
    return found


def test_a_profile_becomes_a_row_of_the_catalogue() -> None:
    row = size("mx3d-128x1280")

    assert (row.instance_type, row.vcpus, row.cores, row.memory_gib) == ("mx3d-128x1280", 128, 64, 1280.0)
    assert (row.arch, row.region, row.usd_per_hour, row.priced_at) == ("x86_64", "us-south", None, "")
    assert row.local_ssd_gb > 0


def test_the_later_form_of_numbers_is_read_as_well() -> None:
    later = body(profiles()["mx2-128x1024"], "us-south", "http://x/v1", "2026-10-01")

    assert later["vcpu_count"]["type"] == "enum"
    assert prices.size_of(later, "us-south") == size("mx2-128x1024")


def test_machines_for_other_work_are_left_out() -> None:
    raw = body(profiles()["bx2-2x8"], "us-south", "http://x/v1", "2026-06-30")

    assert prices.size_of({**raw, "gpu_count": {"type": "fixed", "value": 1}}, "us-south") is None
    assert prices.size_of({**raw, "vcpu_architecture": {"type": "fixed", "value": "s390x"}}, "us-south") is None


def test_a_price_for_the_whole_machine_is_the_price() -> None:
    found = deployments(metric("part-is.instance-hours-bx3d-128x640", 7.253), metric("part-is.instance-hours-dh-x", 1))

    assert prices.usd_per_hour(found, "us-south", size("bx3d-128x640")) == 7.253


def test_prices_for_parts_add_up() -> None:
    found = deployments(metric(CPU, 0.03), metric(MEMORY, 0.004))

    assert prices.usd_per_hour(found, "us-south", size("mx2-128x1024")) == pytest.approx(128 * 0.03 + 1024 * 0.004)


def test_a_local_disk_without_its_meter_leaves_the_price_unknown() -> None:
    parts = [metric(CPU, 0.03), metric(MEMORY, 0.004)]
    row = size("bx2d-2x8")

    assert prices.usd_per_hour(deployments(*parts), "us-south", row) is None
    with_disk = prices.usd_per_hour(deployments(*parts, metric(DISK, 0.0001)), "us-south", row)
    assert with_disk == pytest.approx(2 * 0.03 + 8 * 0.004 + row.local_ssd_gb * 0.0001)


def test_where_the_local_disk_is_free_no_meter_is_missed() -> None:
    found = deployments(metric(CPU, 0.03), metric(MEMORY, 0.004))

    assert prices.usd_per_hour(found, "us-south", size("ux2d-200x5600")) == pytest.approx(200 * 0.03 + 5600 * 0.004)


@pytest.mark.parametrize(
    "found",
    [
        [],
        deployments(metric(CPU, 0.03), region="us-east"),
        deployments(metric(CPU, 0.03)),
        deployments({"metric_id": CPU, "amounts": []}),
        [{"deployment_location": "us-south", "metrics": None}],
    ],
)
def test_what_is_not_told_is_unknown_and_not_free(found: list[dict[str, Any]]) -> None:
    assert prices.usd_per_hour(found, "us-south", size("mx2-128x1024")) is None


def test_a_price_by_the_thousand_is_divided() -> None:
    found = deployments(metric("part-is.instance-hours", 7000.0, charge_unit_quantity=1000))

    assert prices.usd_per_hour(found, "us-south", size("bx3d-128x640")) == 7.0


def test_the_plan_of_shared_hosts_is_found_in_a_catalogue_entry() -> None:
    measures = [
        {"component": "os", "deployments": [{"type": "multi-tenant", "plan": "wrong"}]},
        {
            "component": "instance",
            "deployments": [{"type": "single-tenant", "plan": "dear"}, {"type": "multi-tenant", "plan": "gen3"}],
        },
    ]

    assert prices.plan_of({"metadata": {"other": {"profile": {"measures": measures}}}}) == "gen3"
    for entry in ({}, {"metadata": None}, {"metadata": {"other": {"profile": {}}}}):
        assert prices.plan_of(entry) == ""


def test_a_price_bears_its_day_and_an_unknown_one_none() -> None:
    row = size("bx2-2x8")

    assert prices.priced(row, 0.1, "2026-11-26").priced_at == "2026-11-26"
    assert prices.priced(row, None, "2026-11-26").priced_at == ""
