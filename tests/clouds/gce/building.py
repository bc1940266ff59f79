"""From the body of `instances.insert` to the instance and its disks, or to why Compute Engine would not have it."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from . import links, world
from .discovery import is_time
from .faults import Refusal, exists, invalid, not_in_zone
from .store import ROOT, Key, Resource, Store

_LABEL_KEY = re.compile(r"[a-z\u00df-\u024f][a-z0-9\u00df-\u024f_-]{0,62}")
_LABEL_VALUE = re.compile(r"[a-z0-9\u00df-\u024f_-]{0,63}")
_METADATA_VALUE, _METADATA_ALL, _LABELS = 256 << 10, 512 << 10, 64
#: Seconds: the run times that may be asked for.
_RUN_MIN, _RUN_MAX = 30, 120 * 86400


@dataclass(frozen=True)
class Built:
    """All that a create call makes."""

    kind: world.MachineType
    instance: Resource
    disks: tuple[tuple[Key, Resource], ...]
    user_data: str
    public: bool
    spot: bool


def build(store: Store, zone: str, body: Mapping[str, Any]) -> Built:
    """Raises Refusal."""
    key = Key("instances", f"zones/{zone}", body["name"])
    kind = _kind(body.get("machineType", ""), zone)
    scheduling = _scheduling(store, body.get("scheduling", {}), kind)
    labels = check_labels("resource.labels", body.get("labels", {}))
    disks, attached = _disks(store, body, zone, kind)
    interfaces = _interfaces(store, body.get("networkInterfaces", []), zone)
    metadata = _metadata(body.get("metadata", {}).get("items", []))
    if len(body.get("serviceAccounts", [])) > 1:
        raise invalid("resource.serviceAccounts", "", "At most one service account can be specified.")
    instance = {
        **body,
        "zone": f"{ROOT}projects/{store.project}/zones/{zone}",
        "machineType": f"{ROOT}projects/{store.project}/zones/{zone}/machineTypes/{kind.name}",
        "status": "PROVISIONING",
        "cpuPlatform": "Unknown CPU Platform",
        "labels": labels,
        "labelFingerprint": fingerprint(labels),
        "metadata": {
            "kind": "compute#metadata",
            "fingerprint": fingerprint(metadata),
            "items": [{"key": name, "value": value} for name, value in metadata.items()],
        },
        "tags": {**body.get("tags", {}), "fingerprint": fingerprint(body.get("tags", {}))},
        "disks": attached,
        "networkInterfaces": interfaces,
        "scheduling": scheduling,
        "startRestricted": False,
        "deletionProtection": body.get("deletionProtection", False),
        "fingerprint": fingerprint(key.path),
        "resourceStatus": {"scheduling": {}},
    }
    public = any(interface.get("accessConfigs") for interface in interfaces)
    return Built(
        kind=kind,
        instance=instance,
        disks=tuple(disks),
        user_data=metadata.get("user-data", ""),
        public=public,
        spot=scheduling["provisioningModel"] == "SPOT",
    )


def fingerprint(value: object) -> str:
    """What changes when a value does, as the API writes it."""
    return base64.b64encode(hashlib.sha256(repr(value).encode()).digest()[:8]).decode()


def check_labels(field: str, labels: Mapping[str, str]) -> dict[str, str]:
    """Refuses what cannot be labels."""
    if len(labels) > _LABELS:
        raise invalid(field, len(labels), f"A resource has at most {_LABELS} labels.")
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key):
            raise invalid(field, key, "Label key must be a match of regex '[a-z][a-z0-9_-]{0,62}'")
        if not _LABEL_VALUE.fullmatch(value):
            raise invalid(field, value, "Label value must be a match of regex '[a-z0-9_-]{0,63}'")
    return dict(labels)


def _kind(text: str, zone: str) -> world.MachineType:
    link = links.read("resource.machineType", text, "machineTypes")
    if link.key.scope != f"zones/{zone}":
        raise invalid("resource.machineType", text, f"It must be in the zone of the instance, '{zone}'.")
    kind = world.machine_type(link.key.name, zone)
    if kind is None:
        raise not_in_zone(link.key.name, zone)
    return kind


# --- scheduling ---


def _scheduling(store: Store, given: Mapping[str, Any], kind: world.MachineType) -> dict[str, Any]:
    model = given.get("provisioningModel", "SPOT" if given.get("preemptible") else "STANDARD")
    if model not in ("STANDARD", "SPOT"):
        raise invalid("resource.scheduling.provisioningModel", model, "This double knows STANDARD and SPOT.")
    spot = model == "SPOT"
    stays = spot or kind.family in world.IMMOVABLE
    whole = {
        "automaticRestart": not spot,
        "onHostMaintenance": "TERMINATE" if spot else "MIGRATE",
        "preemptible": spot,
        "provisioningModel": model,
        **given,
    }
    if spot and whole["automaticRestart"]:
        raise invalid(
            "resource.scheduling.automaticRestart", "true", "Automatic restart must be off for a preemptible instance."
        )
    if stays and whole["onHostMaintenance"] != "TERMINATE":
        raise invalid(
            "resource.scheduling.onHostMaintenance",
            whole["onHostMaintenance"],
            f"An instance with {'SPOT' if spot else kind.name} must have 'TERMINATE' as its host maintenance policy.",
        )
    _check_end(store, whole, spot=spot)
    return whole


def _check_end(store: Store, whole: Mapping[str, Any], *, spot: bool) -> None:
    duration, moment = whole.get("maxRunDuration"), whole.get("terminationTime")
    action = whole.get("instanceTerminationAction")
    if duration is not None and moment is not None:
        raise invalid("resource.scheduling.terminationTime", moment, "It excludes maxRunDuration.")
    if (duration or moment) and action not in ("DELETE", "STOP"):
        why = "You must specify a termination action when the run time is limited."
        raise invalid("resource.scheduling.instanceTerminationAction", action or "", why)
    if action and not (duration or moment or spot):
        why = "Only an instance whose run time is limited, or a SPOT one, has a termination action."
        raise invalid("resource.scheduling.instanceTerminationAction", action, why)
    if duration is not None:
        seconds = int(duration.get("seconds", 0))
        if not _RUN_MIN <= seconds <= _RUN_MAX:
            why = f"It must be between {_RUN_MIN} seconds and {_RUN_MAX // 86400} days."
            raise invalid("resource.scheduling.maxRunDuration", f"{seconds}s", why)
    if moment is not None and (
        not is_time(moment) or datetime.fromisoformat(moment).timestamp() < store.now() + _RUN_MIN
    ):
        raise invalid("resource.scheduling.terminationTime", moment, "It must be a time that is to come.")


# --- disks ---


def _disks(
    store: Store, body: Mapping[str, Any], zone: str, kind: world.MachineType
) -> tuple[list[tuple[Key, Resource]], list[dict[str, Any]]]:
    given = body.get("disks", [])
    if not given or not given[0].get("boot"):
        raise invalid("resource.disks", "", "The first disk must be the boot disk.")
    made: list[tuple[Key, Resource]] = []
    attached = []
    for index, disk in enumerate(given):
        field = f"resource.disks[{index}]"
        parameters = disk.get("initializeParams")
        if parameters is None or disk.get("source") or disk.get("type", "PERSISTENT") != "PERSISTENT":
            raise invalid(field, "", "This double knows only persistent disks that are made with the instance.")
        name = parameters.get("diskName") or (body["name"] if index == 0 else f"{body['name']}-{index}")
        key = Key("disks", f"zones/{zone}", name)
        if store.find(key):
            raise exists(store.path(key))
        resource = _disk(store, f"{field}.initializeParams", parameters, zone, kind)
        resource["users"] = [store.link(Key("instances", f"zones/{zone}", body["name"]))]
        made.append((key, resource))
        attached.append(_attached(store, disk, key, resource, index))
    return made, attached


def _attached(
    store: Store, disk: Mapping[str, Any], key: Key, resource: Mapping[str, Any], index: int
) -> dict[str, Any]:
    return {
        "kind": "compute#attachedDisk",
        "type": "PERSISTENT",
        "mode": disk.get("mode", "READ_WRITE"),
        "source": store.link(key),
        "deviceName": disk.get("deviceName", f"persistent-disk-{index}"),
        "index": index,
        "boot": disk.get("boot", False),
        "autoDelete": disk.get("autoDelete", False),
        "interface": disk.get("interface", "SCSI"),
        "diskSizeGb": resource["sizeGb"],
        "architecture": resource["architecture"],
    }


def _disk(
    store: Store, field: str, parameters: Mapping[str, Any], zone: str, kind: world.MachineType
) -> dict[str, Any]:
    image = find_image(store, f"{field}.sourceImage", parameters.get("sourceImage", ""))
    wanted = "ARM64" if kind.arch == "arm64" else "X86_64"
    if image["architecture"] != wanted:
        message = (
            f"Requested boot disk architecture ({image['architecture']}) is not compatible with machine type "
            f"architecture ({wanted})."
        )
        raise Refusal(400, "invalid", message)
    size = int(parameters.get("diskSizeGb", image["diskSizeGb"]))
    if size < int(image["diskSizeGb"]):
        why = f"Requested disk size cannot be smaller than the image size ({image['diskSizeGb']} GB)"
        raise invalid(f"{field}.diskSizeGb", size, why)
    return {
        "zone": f"{ROOT}projects/{store.project}/zones/{zone}",
        "status": "READY",
        "sizeGb": str(size),
        "type": f"{ROOT}projects/{store.project}/zones/{zone}/diskTypes/{_disk_type(field, parameters, zone, kind)}",
        "sourceImage": image["selfLink"],
        "architecture": image["architecture"],
        "labels": check_labels(f"{field}.labels", parameters.get("labels", {})),
        "labelFingerprint": fingerprint(parameters.get("labels", {})),
        "physicalBlockSizeBytes": "4096",
        "lastAttachTimestamp": store.timestamp(),
    }


def _disk_type(field: str, parameters: Mapping[str, Any], zone: str, kind: world.MachineType) -> str:
    text = parameters.get("diskType", f"zones/{zone}/diskTypes/pd-standard")
    link = links.read(f"{field}.diskType", text, "diskTypes")
    name = link.key.name
    if link.key.scope != f"zones/{zone}" or name not in world.DISK_TYPES:
        raise invalid(f"{field}.diskType", text, "The referenced diskType resource cannot be found.")
    if (name.startswith("pd-") and kind.family in world.HYPERDISK_ONLY) or (
        name.startswith("hyperdisk-") and kind.family in world.PD_ONLY
    ):
        message = (
            f"[{name}] features and [instance_type: VIRTUAL_MACHINE, family: {kind.family.upper()}, machine_type: "
            f"{kind.name}] features are not compatible for creating instance."
        )
        raise Refusal(400, "badRequest", message)
    return name


def find_image(store: Store, field: str, text: str) -> Resource:
    """An image by its link, or the newest of a family by the link of that."""
    link = links.read(field, text, "images")
    family = link.key.name.removeprefix("family/")
    for image in world.images(link.project or store.project) or ():
        if link.key.name in (image["name"], f"family/{image['family']}") and family:
            return image
    raise invalid(field, text, "The referenced image resource cannot be found.")


# --- network ---


def _interfaces(store: Store, given: list[Mapping[str, Any]], zone: str) -> list[dict[str, Any]]:
    if not given:
        raise invalid("resource.networkInterfaces", "", "At least one network interface is required.")
    return [_interface(store, f"resource.networkInterfaces[{n}]", f"nic{n}", one, zone) for n, one in enumerate(given)]


def _interface(store: Store, field: str, name: str, given: Mapping[str, Any], zone: str) -> dict[str, Any]:
    region = f"regions/{world.region_of(zone)}"
    if "subnetwork" in given:
        subnet = _referenced(store, f"{field}.subnetwork", given["subnetwork"], "subnetworks")
        if subnet.scope != region:
            raise invalid(f"{field}.subnetwork", given["subnetwork"], f"It must be in the instance's region, {region}.")
        network = links.read(field, str(_there(store, subnet)["network"]), "networks").key
        if "network" in given and links.read(f"{field}.network", given["network"], "networks").key != network:
            raise invalid(f"{field}.network", given["network"], "The subnetwork is of another network.")
    else:
        network = _referenced(store, f"{field}.network", given.get("network", "global/networks/default"), "networks")
        subnet = _automatic(store, field, network, region)
    interface: dict[str, Any] = {
        **given,
        "kind": "compute#networkInterface",
        "name": name,
        "network": store.link(network),
        "subnetwork": store.link(subnet),
        "fingerprint": fingerprint((network, subnet)),
        "stackType": given.get("stackType", "IPV4_ONLY"),
    }
    if "accessConfigs" in given:
        interface["accessConfigs"] = [
            {
                "kind": "compute#accessConfig",
                "type": "ONE_TO_ONE_NAT",
                "name": "External NAT",
                "networkTier": "PREMIUM",
                **one,
            }
            for one in given["accessConfigs"]
        ]
    return interface


def _automatic(store: Store, field: str, network: Key, region: str) -> Key:
    """The one subnetwork that a network in auto mode has in a region."""
    if not _there(store, network).get("autoCreateSubnetworks"):
        path = store.path(network)
        message = f"Network '{path}' is in custom subnet mode: a subnetwork must be specified."
        raise invalid(f"{field}.subnetwork", "", message)
    for key, one in store.of("subnetworks", region):
        if one["network"] == store.link(network):
            return key
    raise invalid(f"{field}.network", store.path(network), f"It has no subnetwork in {region}.")


def _referenced(store: Store, field: str, text: str, collection: str) -> Key:
    link = links.read(field, text, collection)
    if link.project not in ("", store.project) or store.find(link.key) is None:
        raise invalid(field, text, f"The referenced {collection.removesuffix('s')} resource cannot be found.")
    return link.key


def _there(store: Store, key: Key) -> Resource:
    found = store.find(key)
    assert found is not None, key
    return found


def _metadata(items: list[Mapping[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in items:
        if item["key"] in found:
            raise invalid("resource.metadata", item["key"], "The key is given twice.")
        if len(item["value"].encode()) > _METADATA_VALUE:
            why = f"Metadata entry is larger than {_METADATA_VALUE} bytes."
            raise invalid(f"resource.metadata.items[{len(found)}].value", item["key"], why)
        found[item["key"]] = item["value"]
    if sum(len(key.encode()) + len(value.encode()) for key, value in found.items()) > _METADATA_ALL:
        raise invalid("resource.metadata", "", f"The metadata are larger than {_METADATA_ALL} bytes.")
    return found
