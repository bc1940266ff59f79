"""Specs, and answers in the shape of IBM's API: each is read by the SDK's own model before a test may use it."""

from __future__ import annotations

from typing import Any

from ibm_vpc import vpc_v1

from vmrun.core.clouds import InstanceSpec, Offer, instance_name

OWNER, OTHER, VM = "6a4yzy8c", "9173cd0h", "0" * 25 + "v"
GIB = 1 << 30


def offer(**changes: Any) -> Offer:
    given: dict[str, Any] = {
        "on": "ibm",
        "instance_type": "mx2-128x1024",
        "region": "us-south",
        "zone": "us-south-2",
        "arch": "x86_64",
        "vcpus": 128,
        "cores": 64,
        "memory": 1024 * GIB,
        "usd_per_hour": 8.306,
        "bucket": "vCPU per region",
    }
    return Offer(**{**given, **changes})


def spec(**changes: Any) -> InstanceSpec:
    given: dict[str, Any] = {
        "vm": VM,
        "owner": OWNER,
        "name": instance_name(OWNER, VM),
        "offer": offer(),
        "user_data": "#cloud-config\n{}\n",
        "hard_deadline": 1_800_000_000.0,
        "tags": {"vmrun-owner": OWNER, "vmrun-vm": VM},
    }
    return InstanceSpec(**{**given, **changes})


def _reference(kind: str, id: str, name: str, **more: Any) -> dict[str, Any]:
    return {"crn": f"crn:v1:{kind}:{id}", "href": f"https://x/{id}", "id": id, "name": name, **more}


def instance(**changes: Any) -> dict[str, Any]:
    """A running instance that `spec()` made, as `get_instance` shows it."""
    address = {"address": "10.240.0.7", "href": "h", "id": "ip", "name": "ip", "resource_type": "subnet_reserved_ip"}
    subnet = _reference("subnet", "sub", "sub", resource_type="subnet")
    interface = _reference("vni", "vni-1", "vni", resource_type="virtual_network_interface")
    attachment = {
        "href": "h",
        "id": "att",
        "name": "eth0",
        "primary_ip": address,
        "resource_type": "instance_network_attachment",
        "subnet": subnet,
        "virtual_network_interface": interface,
    }
    card = {
        "href": "h",
        "id": "att",
        "name": "eth0",
        "primary_ip": address,
        "resource_type": "network_interface",
        "subnet": subnet,
    }
    volume = _reference("volume", "vol", instance_name(OWNER, VM), resource_type="volume")
    boot = {"href": "h", "id": "va", "name": "vmrun-until-1800000000-3ab9d26b2cd7d3a62f4d", "volume": volume}
    raw = _reference("instance", "0717_made", instance_name(OWNER, VM)) | {
        "availability": {"class": "standard"},
        "availability_policy": {"host_failure": "stop", "preemption": "stop"},
        "bandwidth": 80000,
        "boot_volume_attachment": boot,
        "cluster_network_attachments": [],
        "confidential_compute_mode": "disabled",
        "created_at": "2026-11-26T14:00:00Z",
        "disks": [],
        "enable_secure_boot": False,
        "health_reasons": [],
        "health_state": "ok",
        "lifecycle_reasons": [],
        "lifecycle_state": "stable",
        "memory": 1024,
        "metadata_service": {"enabled": True, "protocol": "http", "response_hop_limit": 1},
        "network_attachments": [attachment],
        "network_interfaces": [card],
        "primary_network_attachment": attachment,
        "primary_network_interface": card,
        "profile": {"href": "h", "name": "mx2-128x1024", "resource_type": "instance_profile"},
        "reservation_affinity": {"policy": "disabled", "pool": []},
        "resource_group": {"href": "h", "id": "rg", "name": "Default"},
        "resource_type": "instance",
        "software_attachments": [],
        "startable": True,
        "status": "running",
        "status_reasons": [],
        "threads_per_core": 2,
        "total_network_bandwidth": 60000,
        "total_volume_bandwidth": 20000,
        "vcpu": {
            "architecture": "amd64",
            "count": 128,
            "manufacturer": "intel",
            "burst": {"limit": 100},
            "percentage": 100,
        },
        "volume_attachments": [boot],
        "volume_bandwidth_qos_mode": "pooled",
        "vpc": _reference("vpc", "vpc", "vpc", resource_type="vpc"),
        "zone": {"href": "h", "name": "us-south-2"},
    }
    raw |= changes
    vpc_v1.Instance.from_dict(raw)
    return raw


def floating_ip(**changes: Any) -> dict[str, Any]:
    """The address of `instance()`, bound to its interface."""
    raw = _reference("fip", "fip-1", instance_name(OWNER, VM)) | {
        "address": "203.0.113.9",
        "created_at": "2026-11-26T14:00:05Z",
        "resource_group": {"href": "h", "id": "rg", "name": "Default"},
        "status": "available",
        "zone": {"href": "h", "name": "us-south-2"},
        "target": _reference("vni", "vni-1", "vni", resource_type="virtual_network_interface")
        | {
            "primary_ip": {
                "address": "10.240.0.7",
                "href": "h",
                "id": "i",
                "name": "n",
                "resource_type": "subnet_reserved_ip",
            }
        },
    }
    raw |= changes
    vpc_v1.FloatingIP.from_dict(raw)
    return raw


def refusal(code: str, message: str = "no", *, target: str = "") -> dict[str, Any]:
    """The body of an error."""
    error: dict[str, Any] = {"code": code, "message": message, "more_info": "https://docs"}
    if target:
        error["target"] = {"name": target, "type": "field"}
    return {"errors": [error], "trace": "1f2e3d4c"}
