"""Methods that look and change nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.clouds.trouble import Trouble

from . import listing, world
from .faults import Refusal, not_found
from .project import NUMBER, Call, Project
from .store import ROOT, Key, Resource

Handler = Callable[[Project, Call], Any]
_SCOPES: Mapping[str, tuple[str, ...]] = {
    "zones": tuple(f"zones/{zone}" for zone in world.zones()),
    "regions": tuple(f"regions/{region}" for region in world.REGIONS),
}
#: In which scopes each collection is that can be listed over all of them.
_AGGREGATED: Mapping[str, tuple[str, ...]] = {
    "instances": _SCOPES["zones"],
    "machineTypes": _SCOPES["zones"],
    "disks": (*_SCOPES["regions"], *_SCOPES["zones"]),
    "addresses": ("global", *_SCOPES["regions"]),
    "subnetworks": _SCOPES["regions"],
}


def get(project: Project, call: Call) -> Resource:
    key = call.key
    for found, resource in _items(project, call, 0.0):
        if key.name in (found.name, resource["id"]):
            return resource
    raise not_found(project.store.path(key))


def list_(project: Project, call: Call) -> Any:
    rule = call.rule(project.script, Trouble.list_lag)
    items = _items(project, call, rule.seconds if rule else 0.0)
    return listing.plain(call.method, project.store.project, items, call.parameters, _wrong(project, call))


def aggregated_list(project: Project, call: Call) -> Any:
    rule = call.rule(project.script, Trouble.list_lag)
    scopes = _AGGREGATED[call.method.collection]
    items = [
        item
        for scope in scopes
        for item in _in_scope(project, call.method.collection, scope, rule.seconds if rule else 0.0)
    ]
    wrong = _wrong(project, call)
    return listing.aggregated(call.method, project.store.project, items, call.parameters, wrong, scopes)


def _wrong(project: Project, call: Call) -> listing.Wrong:
    return listing.Wrong(
        small=call.rule(project.script, Trouble.small_pages),
        # What fails in the middle fails on the way from the first page to the second.
        half=None if call.parameters.get("pageToken") else call.rule(project.script, Trouble.half_a_list),
    )


def _items(project: Project, call: Call, age: float) -> Iterator[tuple[Key, Resource]]:
    name, collection = project.store.project, call.method.collection
    if collection == "zones":
        for zone in world.zones():
            yield Key("zones", "global", zone), world.zone_resource(name, zone)
    elif collection == "regions":
        for region in world.REGIONS:
            quotas = project.quotas.of_region(region)
            yield Key("regions", "global", region), world.region_resource(name, region, quotas)
    elif collection == "images":
        for image in world.images(call.parameters["project"]) or ():
            yield Key("images", "global", image["name"]), image
    else:
        yield from _in_scope(project, collection, call.scope, age)


def _in_scope(project: Project, collection: str, scope: str, age: float) -> Iterator[tuple[Key, Resource]]:
    if collection == "machineTypes":
        zone = scope.removeprefix("zones/")
        for name in sorted(world.types(world.region_of(zone))):
            if kind := world.machine_type(name, zone):
                yield Key("machineTypes", scope, name), world.type_resource(project.store.project, kind, zone)
        return
    stored = "operations" if collection.endswith("Operations") else collection
    for key, resource in project.store.of(stored, scope, age=age):
        if not project.life.hidden(key):
            yield key, resource


def image_of_family(project: Project, call: Call) -> Resource:
    del project
    family = call.parameters["family"]
    for image in world.images(call.parameters["project"]) or ():
        if image["family"] == family:
            return image
    raise not_found(f"projects/{call.parameters['project']}/global/images/family/{family}")


def serial_port(project: Project, call: Call) -> Any:
    key = Key("instances", call.scope, get(project, call)["name"])
    host = project.life.hosts[key]
    text = project.machines.console(host.machine) if host.machine else ""
    start = int(call.parameters.get("start", 0))
    return {
        "kind": "compute#serialPortOutput",
        "contents": text[start:],
        "start": str(start),
        "next": str(len(text)),
        "selfLink": f"{project.store.link(key)}/serialPort",
    }


def operation(project: Project, call: Call) -> Resource:
    return project.operations.get(call.parameters, call.scope)


def project_itself(project: Project, call: Call) -> Any:
    del call
    name = project.store.project
    return {
        "kind": "compute#project",
        "id": NUMBER,
        "name": name,
        "creationTimestamp": "2026-01-05T09:00:00.000-08:00",
        "selfLink": f"{ROOT}projects/{name}",
        "defaultServiceAccount": f"{NUMBER}-compute@developer.gserviceaccount.com",
        "commonInstanceMetadata": {
            "kind": "compute#metadata",
            "fingerprint": "AAAAAAAAAAA=",
            "items": [{"key": key, "value": value} for key, value in project.metadata.items()],
        },
        "quotas": project.quotas.of_project(),
        "defaultNetworkTier": "PREMIUM",
    }


# --- beside Compute Engine ---


def permissions(project: Project, call: Call) -> Any:
    """Those of the permissions asked about that the caller has."""
    resource = str(call.parameters["resource"]).removeprefix("projects/")
    if resource != project.store.project:
        raise Refusal(403, "forbidden", "The caller does not have permission")
    held = [one for one in call.body.get("permissions", ()) if project.may(one)]
    return {"permissions": held} if held else {}


def service_state(project: Project, call: Call) -> Any:
    """Whether an API may be used: all may."""
    del project
    return {"name": call.parameters["name"], "parent": f"projects/{NUMBER}", "state": "ENABLED"}


def skus(project: Project, call: Call) -> Any:
    """The price list: as much of it as tells the price of a few families in one region."""
    del project
    if call.parameters["parent"] != "services/6F81-5844-456A":
        raise Refusal(404, "notFound", "Requested entity was not found.")
    return {"skus": [_sku(number, *one) for number, one in enumerate(_SKUS)]}


#: What is sold, its group, for whom, and nano-dollars: an hour of a core, or of a GiB of memory.
_SKUS = (
    ("C4 Instance Core running in Iowa", "CPU", "OnDemand", 34_650_000),
    ("C4 Instance Ram running in Iowa", "RAM", "OnDemand", 3_938_000),
    ("Spot Preemptible C4 Instance Core running in Iowa", "CPU", "Preemptible", 13_860_000),
    ("Spot Preemptible C4 Instance Ram running in Iowa", "RAM", "Preemptible", 1_575_000),
    ("N2 Instance Core running in Iowa", "CPU", "OnDemand", 31_611_000),
    ("N2 Instance Ram running in Iowa", "RAM", "OnDemand", 4_237_000),
)


def _sku(number: int, description: str, group: str, usage: str, nanos: int) -> dict[str, Any]:
    name = f"DBLE-{number:04d}-SKU0"
    unit = "h" if group == "CPU" else "GiBy.h"
    rate = {"startUsageAmount": 0, "unitPrice": {"currencyCode": "USD", "units": "0", "nanos": nanos}}
    return {
        "name": f"services/6F81-5844-456A/skus/{name}",
        "skuId": name,
        "description": description,
        "category": {
            "serviceDisplayName": "Compute Engine",
            "resourceFamily": "Compute",
            "resourceGroup": group,
            "usageType": usage,
        },
        "serviceRegions": ["us-central1"],
        "serviceProviderName": "Google",
        "pricingInfo": [
            {
                "effectiveTime": "2026-11-25T08:00:00Z",
                "currencyConversionRate": 1,
                "pricingExpression": {
                    "usageUnit": unit,
                    "usageUnitDescription": "hour",
                    "displayQuantity": 1,
                    "tieredRates": [rate],
                },
            }
        ],
    }


HANDLERS: Mapping[str, Handler] = {
    **{
        f"compute.{collection}.get": get
        for collection in (
            "instances",
            "disks",
            "addresses",
            "networks",
            "subnetworks",
            "firewalls",
            "zones",
            "regions",
            "machineTypes",
            "images",
        )
    },
    **{
        f"compute.{collection}.list": list_
        for collection in (
            "instances",
            "disks",
            "addresses",
            "networks",
            "subnetworks",
            "firewalls",
            "zones",
            "regions",
            "machineTypes",
            "images",
            "zoneOperations",
            "regionOperations",
            "globalOperations",
        )
    },
    **{f"compute.{collection}.aggregatedList": aggregated_list for collection in _AGGREGATED},
    **{
        f"compute.{scope}Operations.{verb}": operation
        for scope in ("zone", "region", "global")
        for verb in ("get", "wait")
    },
    "compute.images.getFromFamily": image_of_family,
    "compute.instances.getSerialPortOutput": serial_port,
    "compute.projects.get": project_itself,
    "cloudresourcemanager.projects.testIamPermissions": permissions,
    "cloudbilling.services.skus.list": skus,
    "serviceusage.services.get": service_state,
}
