"""How the account's things look in answers: the shapes of the SDK's models."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime
from typing import Any

from .world import Account, FloatingIp, Gateway, Group, Interface, Key, Subnet, Thing, Vpc, region_of

Json = dict[str, Any]


def moment(seconds: float) -> str:
    """A time as the API writes it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def reference(account: Account, path: str, kind: str, thing: Thing, zone: str = "") -> Json:
    return {
        "id": thing.id,
        "name": thing.name,
        "href": f"{account.base}/{path}/{thing.id}",
        "crn": account.crn(kind, thing.id, zone),
    }


def typed(reference: Json, kind: str) -> Json:
    return {**reference, "resource_type": kind}


def zone(account: Account, name: str) -> Json:
    return {"name": name, "href": f"{account.base}/regions/{region_of(name)}/zones/{name}"}


def resource_group(account: Account, id: str) -> Json:
    return {"id": id, "name": account.resource_groups[id], "href": f"{account.endpoint}/v2/resource_groups/{id}"}


def vpc_reference(account: Account, vpc: Vpc) -> Json:
    return typed(reference(account, "vpcs", "vpc", vpc), "vpc")


def subnet_reference(account: Account, subnet: Subnet) -> Json:
    return typed(reference(account, "subnets", "subnet", subnet, subnet.zone), "subnet")


def group_reference(account: Account, group: Group) -> Json:
    return reference(account, "security_groups", "security-group", group)


def _acl(account: Account, vpc: Vpc) -> Json:
    return {
        "id": vpc.acl,
        "name": f"{vpc.name}-acl",
        "href": f"{account.base}/network_acls/{vpc.acl}",
        "crn": account.crn("network-acl", vpc.acl),
    }


def _routing_table(account: Account, vpc: Vpc) -> Json:
    return {
        "id": vpc.routing_table,
        "name": f"{vpc.name}-routes",
        "href": f"{account.base}/vpcs/{vpc.id}/routing_tables/{vpc.routing_table}",
        "crn": account.crn("routing-table", vpc.routing_table),
        "resource_type": "routing_table",
    }


def common(account: Account, thing: Thing) -> Json:
    return {"created_at": moment(thing.created), "resource_group": resource_group(account, thing.resource_group)}


def vpc(account: Account, one: Vpc) -> Json:
    group = account.groups.get(one.default_group)
    return {
        **vpc_reference(account, one),
        **common(account, one),
        "classic_access": False,
        "cse_source_ips": [],
        "default_network_acl": _acl(account, one),
        "default_routing_table": _routing_table(account, one),
        "default_security_group": group_reference(account, group) if group else {},
        "dns": {
            "enable_hub": False,
            "resolution_binding_count": 0,
            "resolver": {"type": "system", "servers": [], "configuration": "default"},
        },
        "health_reasons": [],
        "health_state": "ok",
        "public_address_ranges": [],
        "status": "available",
    }


def subnet(account: Account, one: Subnet) -> Json:
    size = ipaddress.ip_network(one.cidr).num_addresses
    used = sum(interface.subnet is one for interface in account.interfaces.all())
    shape = {
        **subnet_reference(account, one),
        **common(account, one),
        "available_ipv4_address_count": size - 5 - used,
        "ip_version": "ipv4",
        "ipv4_cidr_block": one.cidr,
        "network_acl": _acl(account, one.vpc),
        "routing_table": _routing_table(account, one.vpc),
        "status": "available",
        "total_ipv4_address_count": size,
        "vpc": vpc_reference(account, one.vpc),
        "zone": zone(account, one.zone),
    }
    if one.gateway is not None:
        shape["public_gateway"] = gateway_reference(account, one.gateway)
    return shape


def group(account: Account, one: Group) -> Json:
    members = [i for i in account.interfaces.all() if one in i.groups]
    return {
        **group_reference(account, one),
        **common(account, one),
        "rules": one.rules,
        "targets": [_legacy_reference(account, i) if i.legacy else _target(account, i) for i in members],
        "vpc": vpc_reference(account, one.vpc),
    }


def gateway_reference(account: Account, one: Gateway) -> Json:
    return typed(reference(account, "public_gateways", "public-gateway", one, one.zone), "public_gateway")


def gateway(account: Account, one: Gateway) -> Json:
    return {
        **gateway_reference(account, one),
        **common(account, one),
        "floating_ip": address_reference(account, one.address),
        "status": "available",
        "vpc": vpc_reference(account, one.vpc),
        "zone": zone(account, one.zone),
    }


def key(account: Account, one: Key) -> Json:
    return {
        **reference(account, "keys", "key", one),
        **common(account, one),
        "fingerprint": f"SHA256:{one.id}",
        "length": 256 if one.type == "ed25519" else 4096,
        "public_key": one.public_key,
        "type": one.type,
    }


# --- network interfaces and floating IPs ---


def interface_reference(account: Account, one: Interface) -> Json:
    return typed(
        reference(account, "virtual_network_interfaces", "virtual-network-interface", one, one.subnet.zone),
        "virtual_network_interface",
    )


def _target(account: Account, one: Interface) -> Json:
    """As what it is a target of tells of it."""
    return {
        **interface_reference(account, one),
        "primary_ip": primary_ip(account, one),
        "subnet": subnet_reference(account, one.subnet),
    }


def _legacy_path(account: Account, one: Interface) -> str:
    owner = one.instance.id if one.instance else "none"
    return f"{account.base}/instances/{owner}/network_interfaces/{one.id if one.legacy else one.attachment}"


def primary_ip(account: Account, one: Interface) -> Json:
    """`0.0.0.0` until it is chosen, as IBM's documentation says."""
    return {
        "address": one.address,
        "href": f"{account.base}/subnets/{one.subnet.id}/reserved_ips/{one.id}",
        "id": one.id,
        "name": f"{one.name}-ip",
        "resource_type": "subnet_reserved_ip",
    }


def _legacy_reference(account: Account, one: Interface) -> Json:
    return {
        "id": one.id if one.legacy else one.attachment,
        "name": one.name,
        "href": _legacy_path(account, one),
        "resource_type": "network_interface",
    }


def legacy_reference(account: Account, one: Interface) -> Json:
    """As an instance tells of it, and of a newer one in the older words."""
    return {
        **_legacy_reference(account, one),
        "primary_ip": primary_ip(account, one),
        "subnet": subnet_reference(account, one.subnet),
    }


def legacy_interface(account: Account, one: Interface) -> Json:
    addresses = [a for a in account.addresses.all() if a.target is one]
    return {
        **legacy_reference(account, one),
        "allow_ip_spoofing": False,
        "created_at": moment(one.created),
        "floating_ips": [address_reference(account, a) for a in addresses],
        "port_speed": 16000,
        "security_groups": [group_reference(account, g) for g in one.groups],
        "status": "available",
        "type": "primary",
    }


def interface(account: Account, one: Interface) -> Json:
    shape = {
        **interface_reference(account, one),
        **common(account, one),
        "allow_ip_spoofing": False,
        "auto_delete": one.auto_delete,
        "enable_infrastructure_nat": True,
        "ips": [primary_ip(account, one)],
        "lifecycle_state": "stable",
        "primary_ip": primary_ip(account, one),
        "protocol_state_filtering_mode": "auto",
        "security_groups": [group_reference(account, g) for g in one.groups],
        "subnet": subnet_reference(account, one.subnet),
        "vpc": vpc_reference(account, one.subnet.vpc),
        "zone": zone(account, one.subnet.zone),
    }
    if one.instance is not None:
        shape["target"] = _attachment_name(account, one)
    return shape


def _attachment_name(account: Account, one: Interface) -> Json:
    owner = one.instance.id if one.instance else "none"
    return {
        "id": one.attachment,
        "name": one.attachment_name,
        "href": f"{account.base}/instances/{owner}/network_attachments/{one.attachment}",
        "resource_type": "instance_network_attachment",
    }


def attachment_reference(account: Account, one: Interface) -> Json:
    return {
        **_attachment_name(account, one),
        "primary_ip": primary_ip(account, one),
        "subnet": subnet_reference(account, one.subnet),
        "virtual_network_interface": interface_reference(account, one),
    }


def attachment(account: Account, one: Interface) -> Json:
    return {
        **attachment_reference(account, one),
        "created_at": moment(one.created),
        "lifecycle_state": "stable",
        "port_speed": 16000,
        "type": "primary",
    }


def address_reference(account: Account, one: FloatingIp) -> Json:
    return {**reference(account, "floating_ips", "floating-ip", one, one.zone), "address": one.address}


def address(account: Account, one: FloatingIp) -> Json:
    shape = {
        **address_reference(account, one),
        **common(account, one),
        "status": "available",
        "zone": zone(account, one.zone),
    }
    target = one.target
    if isinstance(target, Gateway):
        shape["target"] = gateway_reference(account, target)
    elif target is not None and target.legacy:
        shape["target"] = {**_legacy_reference(account, target), "primary_ip": primary_ip(account, target)}
    elif target is not None:
        shape["target"] = _target(account, target)
    return shape
