"""How instances and their disks look in answers: the shapes of the SDK's models."""

from __future__ import annotations

from typing import Any

from . import shapes
from .world import Account, Instance, Volume

Json = dict[str, Any]


def instance_reference(account: Account, one: Instance) -> Json:
    return shapes.reference(account, "instances", "instance", one, one.zone)


def volume_reference(account: Account, one: Volume) -> Json:
    return shapes.typed(shapes.reference(account, "volumes", "volume", one, one.zone), "volume")


def _volume_attachment_name(account: Account, one: Volume) -> Json:
    owner = one.instance.id if one.instance else "none"
    return {
        "id": one.attachment,
        "name": one.attachment_name,
        "href": f"{account.base}/instances/{owner}/volume_attachments/{one.attachment}",
    }


def volume_attachment(account: Account, one: Volume) -> Json:
    return {
        **_volume_attachment_name(account, one),
        "bandwidth": 3000,
        "created_at": shapes.moment(one.created),
        "delete_volume_on_instance_delete": one.delete_with_instance,
        "status": "attached",
        "type": "boot",
        "volume": volume_reference(account, one),
    }


def volume(account: Account, one: Volume) -> Json:
    attachments = []
    if one.instance is not None:
        attachments.append(
            {
                **_volume_attachment_name(account, one),
                "delete_volume_on_instance_delete": one.delete_with_instance,
                "instance": instance_reference(account, one.instance),
                "type": "boot",
            }
        )
    return {
        **volume_reference(account, one),
        **shapes.common(account, one),
        "active": one.instance is not None and one.instance.status == "running",
        "adjustable_capacity_states": ["attached"],
        "adjustable_iops_states": [],
        "attachment_state": "attached" if attachments else "unattached",
        "bandwidth": 3000,
        "busy": False,
        "capacity": one.capacity,
        "encryption": "provider_managed",
        "health_reasons": [],
        "health_state": "ok",
        "iops": 3000,
        "profile": {"name": one.profile, "href": f"{account.base}/volume/profiles/{one.profile}"},
        "software_attachments": [],
        "status": "available",
        "status_reasons": [],
        "storage_generation": 1,
        "user_tags": one.tags,
        "volume_attachments": attachments,
        "zone": shapes.zone(account, one.zone),
    }


def instance(account: Account, one: Instance, image: Json) -> Json:
    failed = one.status == "failed"
    legacy = one.interface.legacy
    state = {"pending": "pending", "failed": "failed", "deleting": "deleting"}.get(one.status, "stable")
    boot = {**_volume_attachment_name(account, one.boot), "volume": volume_reference(account, one.boot)}
    shape = {
        **shapes.typed(instance_reference(account, one), "instance"),
        **shapes.common(account, one),
        "availability": {"class": "spot" if one.spot else "standard"},
        "availability_policy": {"host_failure": one.host_failure, "preemption": one.preemption},
        "bandwidth": min(one.profile.vcpus * 2000, 80000),
        "boot_volume_attachment": boot,
        "cluster_network_attachments": [],
        "confidential_compute_mode": "disabled",
        "disks": [],
        "enable_secure_boot": False,
        "health_reasons": [],
        "health_state": "inapplicable" if state in ("failed", "deleting", "pending") else "ok",
        "image": image,
        "lifecycle_reasons": [],
        "lifecycle_state": state,
        "memory": one.profile.gib,
        "metadata_service": one.metadata,
        "network_attachments": [] if legacy else [shapes.attachment_reference(account, one.interface)],
        "network_interfaces": [shapes.legacy_reference(account, one.interface)],
        "primary_network_interface": shapes.legacy_reference(account, one.interface),
        "profile": {
            "name": one.profile.name,
            "href": f"{account.base}/instance/profiles/{one.profile.name}",
            "resource_type": "instance_profile",
        },
        "reservation_affinity": {"policy": "disabled", "pool": []},
        "software_attachments": [],
        "startable": not failed,
        "status": one.status,
        "status_reasons": one.reasons if one.status in ("failed", "stopping", "stopped", "deleting") else [],
        "threads_per_core": 2,
        "total_network_bandwidth": min(one.profile.vcpus * 1500, 60000),
        "total_volume_bandwidth": min(one.profile.vcpus * 500, 20000),
        "vcpu": {
            "architecture": "amd64",
            "count": one.profile.vcpus,
            "manufacturer": "intel",
            "percentage": 100,
            "burst": {"limit": 100},
        },
        "volume_attachments": [boot],
        "volume_bandwidth_qos_mode": "pooled",
        "vpc": shapes.vpc_reference(account, one.vpc),
        "zone": shapes.zone(account, one.zone),
    }
    if not legacy:
        shape["primary_network_attachment"] = shapes.attachment_reference(account, one.interface)
    return shape
