"""What VPC machines need of IBM's other services: Resource Manager, trusted profiles of IAM, the Global Catalog."""

from __future__ import annotations

from typing import Any

from tests.clouds.server import Request

from .iam import Iam
from .profiles import ZONES, Profile, profiles
from .refusals import Refusal
from .world import Account

_CATALOGUE = "/api/v1/"
#: The plan by which all profiles of the second generation and Flex are billed, by vCPU, memory and local disk.
_BY_METER = "plan-standard-gen-2"
_METERED = ("bx2", "bx2d", "cx2", "cx2d", "mx2", "mx2d", "bxf", "cxf", "mxf")
#: US dollars for an hour of one vCPU, one GB of memory, one GB of local disk; close to the real ones in Dallas.
_VCPU, _MEMORY, _DISK = 0.0356, 0.00366, 0.00022
_DEARER = {"us-south": 1.0, "us-east": 1.0, "eu-de": 1.08, "eu-gb": 1.08, "jp-tok": 1.12}


def answer(account: Account, iam: Iam, request: Request) -> tuple[str, dict[str, Any]]:
    """Name of the operation, and the body of the answer. Refusal for what there is not."""
    path = request.path
    if request.method != "GET":
        raise Refusal(404, "invalid_route", "The requested route does not exist.")
    if path == "/v2/resource_groups":
        iam.authenticate(request.headers.get("authorization", ""))
        return "list_resource_groups", _resource_groups(account, request)
    if path.startswith("/v1/profiles/"):
        iam.authenticate(request.headers.get("authorization", ""))
        return "get_profile", _trusted_profile(account, path.rpartition("/")[2])
    if path.startswith(_CATALOGUE):
        return _catalogue(path.removeprefix(_CATALOGUE), request)
    raise Refusal(404, "invalid_route", "The requested route does not exist.")


def _resource_groups(account: Account, request: Request) -> dict[str, Any]:
    default = account.default_resource_group()
    wanted, only_default = request.parameter("name"), request.parameter("default") == "true"
    found = [
        {"id": key, "name": name, "default": key == default, "state": "ACTIVE", "account_id": "account"}
        for key, name in account.resource_groups.items()
        if wanted in ("", name) and (not only_default or key == default)
    ]
    return {"resources": found}


def _trusted_profile(account: Account, key: str) -> dict[str, Any]:
    if key not in account.trusted_profiles:
        raise Refusal(404, "not_found", f"The trusted profile '{key}' could not be found.")
    return {"id": key, "name": account.trusted_profiles[key], "iam_id": f"iam-{key}"}


def _catalogue(path: str, request: Request) -> tuple[str, dict[str, Any]]:
    """A profile's entry, which names its plan, or the prices of a plan in each region."""
    key, _, rest = path.partition("/")
    if not rest and key in profiles():
        return "get_catalog_entry", _entry(profiles()[key])
    if rest == "pricing/deployment" and (key == _BY_METER or key.removeprefix("plan-") in profiles()):
        start = int(request.parameter("_offset", "0"))
        found = [_deployment(key, region) for region in ZONES]
        shown = found[start : start + int(request.parameter("_limit", "50"))]
        return "get_pricing_deployments", {"count": len(found), "offset": start, "resources": shown}
    raise Refusal(404, "not_found", "There is no such entry in the catalogue.")


def _entry(profile: Profile) -> dict[str, Any]:
    plan = _BY_METER if profile.family in _METERED else f"plan-{profile.name}"
    measure = {
        "component": "instance",
        "deployments": [{"type": "dedicated", "plan": "none"}, {"type": "multi-tenant", "plan": plan}],
    }
    return {
        "id": profile.name,
        "name": profile.name,
        "kind": "instance.profile",
        "metadata": {"other": {"profile": {"measures": [measure]}}},
    }


def _deployment(plan: str, region: str) -> dict[str, Any]:
    if plan == _BY_METER:
        metrics = [
            _metric("part-is.cpu-hours", "VCPU_HOURS", _VCPU, region, 63),
            _metric("part-is.ram-hours", "MEMORY_HOURS", _MEMORY, region, 450),
            _metric("part-is.instance-storage-hours", "IS_STORAGE_GIGABYTE_HOURS", _DISK, region, 1),
        ]
    else:
        profile = profiles()[plan.removeprefix("plan-")]
        price = profile.vcpus * _VCPU + profile.gib * _MEMORY
        metrics = [
            _metric(f"part-is.instance-hours-{profile.name}", "INSTANCE_HOURS_MULTI_TENANT", price, region, 1),
            _metric(f"part-is.instance-hours-dh-{profile.name}", "INSTANCE_HOURS_DEDICATED_HOST", 0.0, region, 1),
        ]
    return {"deployment_id": f"{plan}-{region}", "deployment_location": region, "metrics": metrics}


def _metric(key: str, unit: str, price: float, region: str, quantity: int) -> dict[str, Any]:
    tiers = [{"quantity_tier": 1, "price": round(price * _DEARER[region] * quantity, 6)}]
    return {
        "metric_id": key,
        "charge_unit_name": unit,
        "charge_unit_quantity": quantity,
        "amounts": [
            {"country": "DEU", "currency": "EUR", "prices": [{"quantity_tier": 1, "price": 1.0}]},
            {"country": "USA", "currency": "USD", "prices": tiers},
        ],
    }
