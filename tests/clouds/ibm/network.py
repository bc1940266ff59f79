"""VPCs, subnets, security groups, public gateways and keys."""

from __future__ import annotations

import ipaddress
from typing import Any

from . import lists, shapes
from .profiles import ZONES
from .refusals import Refusal, bad_field, conflict, taken
from .requests import Answer, Ask, Handler, given, new_name, referred, resource_group_of, within, zone_of
from .world import FloatingIp, Gateway, Group, Key, Shelf, Subnet, Vpc, region_of

_PREFIX_BITS = 18


def _prefix(zone: str) -> ipaddress.IPv4Network:
    """The addresses that every VPC has in a zone, as IBM gives them by default."""
    region = list(ZONES).index(region_of(zone))
    return ipaddress.IPv4Network(f"10.{240 + region}.{64 * (int(zone[-1]) - 1)}.0/{_PREFIX_BITS}")


def _name_in_vpc(ask: Ask, shelf: Shelf[Any], vpc: Vpc) -> str:
    """A name that need be unique in its VPC only."""
    name = ask.body.get("name")
    if any(one.vpc is vpc and one.name == name for one in shelf.all()):
        raise taken(str(name))
    return new_name(ask, Shelf(shelf.kind), name)


# --- VPCs ---


def create_vpc(ask: Ask) -> Answer:
    account = ask.account
    within("VPCs in the region", len(list(account.vpcs.all())), account.quotas.vpcs)
    name, group, now = new_name(ask, account.vpcs, ask.body.get("name")), resource_group_of(ask), account.now()
    vpc = account.vpcs.add(Vpc(id=account.id(), name=name, created=now, resource_group=group))
    default = Group(id=account.id(), name=f"{name}-default", created=now, resource_group=group, vpc=vpc)
    account.groups.add(default)
    vpc.default_group = default.id
    # As every default group: anything out, and in from its own members.
    default.rules.append(_rule(ask, default, {"direction": "outbound", "protocol": "any"}))
    return Answer(201, shapes.vpc(account, vpc))


def list_vpcs(ask: Ask) -> Answer:
    return lists.shelf(ask, "vpcs", ask.account.vpcs, lambda one: shapes.vpc(ask.account, one))


def get_vpc(ask: Ask) -> Answer:
    return Answer(200, shapes.vpc(ask.account, given(ask, ask.account.vpcs, ask.path["id"])))


def delete_vpc(ask: Ask) -> Answer:
    account = ask.account
    vpc = given(ask, account.vpcs, ask.path["id"])
    inside: list[Any] = [*account.subnets.all(), *account.gateways.all(), *account.instances.all()]
    if any(one.vpc is vpc for one in inside):
        raise conflict("vpc_in_use", "The VPC still has instances, subnets or public gateways in it.")
    vpc.gone = account.now()
    for group in account.groups.all():
        if group.vpc is vpc:
            group.gone = vpc.gone
    return Answer(204)


def list_vpc_address_prefixes(ask: Ask) -> Answer:
    account = ask.account
    vpc = given(ask, account.vpcs, ask.path["vpc_id"])
    rows = []
    for number, zone in enumerate((zone for zones in ZONES.values() for zone in zones), 1):
        own = f"{vpc.id}-{zone}"
        shape = {
            "cidr": str(_prefix(zone)),
            "created_at": shapes.moment(vpc.created),
            "has_subnets": any(one.vpc is vpc and one.zone == zone for one in account.subnets.all()),
            "href": f"{account.base}/vpcs/{vpc.id}/address_prefixes/{own}",
            "id": own,
            "is_default": True,
            "name": f"{vpc.name}-{zone}",
            "zone": shapes.zone(account, zone),
        }
        rows.append((number, shape))
    return lists.page(ask, "address_prefixes", rows)


# --- subnets ---


def create_subnet(ask: Ask) -> Answer:
    account = ask.account
    vpc = referred(account.vpcs, ask.body["vpc"], "vpc.id")
    zone = zone_of(ask.body.get("zone"), "zone.name")
    gateway = ask.body.get("public_gateway")
    subnet = Subnet(
        id=account.id(zone),
        name=_name_in_vpc(ask, account.subnets, vpc),
        created=account.now(),
        resource_group=resource_group_of(ask),
        vpc=vpc,
        zone=zone,
        cidr=str(_network(ask, vpc, zone)),
        gateway=referred(account.gateways, gateway, "public_gateway.id") if gateway else None,
    )
    return Answer(201, shapes.subnet(account, account.subnets.add(subnet)))


def _network(ask: Ask, vpc: Vpc, zone: str) -> ipaddress.IPv4Network:
    prefix = _prefix(zone)
    used = [ipaddress.IPv4Network(one.cidr) for one in ask.account.subnets.all() if one.vpc is vpc]
    if "ipv4_cidr_block" in ask.body:
        text = ask.body["ipv4_cidr_block"]
        try:
            network = ipaddress.IPv4Network(text)
        except ValueError:
            raise Refusal(
                400, "validation_invalid_ipv4_cidr", "The value is not a valid IPv4 CIDR.", "ipv4_cidr_block", text
            ) from None
        if not network.subnet_of(prefix):
            message = "The provided CIDR does not fit in any of the address prefixes in the provided zone."
            raise Refusal(400, "not_in_address_prefix", message, "ipv4_cidr_block", text)
        if any(network.overlaps(other) for other in used):
            raise Refusal(
                400, "subnet_conflict", "CIDR conflicts with existing Subnet in VPC.", "ipv4_cidr_block", text
            )
        return network
    count = int(ask.body["total_ipv4_address_count"])
    if count < 8 or count & (count - 1):
        raise bad_field("total_ipv4_address_count", count, "The count must be a power of 2, 8 at least")
    for network in prefix.subnets(new_prefix=33 - count.bit_length()):
        if not any(network.overlaps(other) for other in used):
            return network
    raise Refusal(400, "insufficient_space_for_subnet", "Insufficient space for subnet in address prefix.")


def list_subnets(ask: Ask) -> Answer:
    return lists.shelf(ask, "subnets", ask.account.subnets, lambda one: shapes.subnet(ask.account, one))


def get_subnet(ask: Ask) -> Answer:
    return Answer(200, shapes.subnet(ask.account, given(ask, ask.account.subnets, ask.path["id"])))


def delete_subnet(ask: Ask) -> Answer:
    subnet = given(ask, ask.account.subnets, ask.path["id"])
    if any(one.subnet is subnet for one in ask.account.interfaces.all()):
        message = "Cannot delete the subnet until it is empty. Delete any resources in the subnet and retry."
        raise conflict("subnet_not_empty", message)
    subnet.gone = ask.account.now()
    return Answer(204)


def set_subnet_public_gateway(ask: Ask) -> Answer:
    account = ask.account
    subnet = given(ask, account.subnets, ask.path["id"])
    gateway = referred(account.gateways, ask.body, "id")
    if gateway.zone != subnet.zone:
        raise Refusal(
            400, "invalid_zone", "Please check whether the resources you are requesting are in the same zone."
        )
    subnet.gateway = gateway
    return Answer(201, shapes.gateway(account, gateway))


def get_subnet_public_gateway(ask: Ask) -> Answer:
    subnet = given(ask, ask.account.subnets, ask.path["id"])
    if subnet.gateway is None:
        raise Refusal(404, "not_found", "The subnet has no public gateway.")
    return Answer(200, shapes.gateway(ask.account, subnet.gateway))


def unset_subnet_public_gateway(ask: Ask) -> Answer:
    given(ask, ask.account.subnets, ask.path["id"]).gateway = None
    return Answer(204)


# --- public gateways ---


def create_public_gateway(ask: Ask) -> Answer:
    account = ask.account
    vpc, zone = referred(account.vpcs, ask.body["vpc"], "vpc.id"), zone_of(ask.body["zone"], "zone.name")
    if any(one.vpc is vpc and one.zone == zone for one in account.gateways.all()):
        raise Refusal(400, "gateway_too_many", "Can only have one public gateway per zone in a VPC.")
    name, group = new_name(ask, account.gateways, ask.body.get("name"), region=region_of(zone)), resource_group_of(ask)
    now = account.now()
    address = FloatingIp(
        id=account.id(),
        name=new_name(ask, account.addresses, f"{name}-ip"[:63], region=region_of(zone)),
        created=now,
        resource_group=group,
        zone=zone,
        reserved=account.spare_address(),
    )
    gateway = Gateway(
        id=account.id(), name=name, created=now, resource_group=group, vpc=vpc, zone=zone, address=address
    )
    address.target = gateway
    account.addresses.add(address)
    return Answer(201, shapes.gateway(account, account.gateways.add(gateway)))


def list_public_gateways(ask: Ask) -> Answer:
    return lists.shelf(ask, "public_gateways", ask.account.gateways, lambda one: shapes.gateway(ask.account, one))


def get_public_gateway(ask: Ask) -> Answer:
    return Answer(200, shapes.gateway(ask.account, given(ask, ask.account.gateways, ask.path["id"])))


def delete_public_gateway(ask: Ask) -> Answer:
    account = ask.account
    gateway = given(ask, account.gateways, ask.path["id"])
    if any(one.gateway is gateway for one in account.subnets.all()):
        raise conflict("public_gateway_in_use", "Cannot delete a public gateway when it is in use.")
    gateway.gone = gateway.address.gone = account.now()
    return Answer(204)


# --- security groups ---


def create_security_group(ask: Ask) -> Answer:
    account = ask.account
    vpc = referred(account.vpcs, ask.body["vpc"], "vpc.id")
    group = Group(
        id=account.id(),
        name=_name_in_vpc(ask, account.groups, vpc),
        created=account.now(),
        resource_group=resource_group_of(ask),
        vpc=vpc,
    )
    group.rules = [_rule(ask, group, wanted) for wanted in ask.body.get("rules") or []]
    return Answer(201, shapes.group(account, account.groups.add(group)))


def list_security_groups(ask: Ask) -> Answer:
    return lists.shelf(ask, "security_groups", ask.account.groups, lambda one: shapes.group(ask.account, one))


def get_security_group(ask: Ask) -> Answer:
    return Answer(200, shapes.group(ask.account, given(ask, ask.account.groups, ask.path["id"])))


def delete_security_group(ask: Ask) -> Answer:
    account = ask.account
    group = given(ask, account.groups, ask.path["id"])
    if group.vpc.default_group == group.id:
        raise conflict("security_group_vpc_default", "Cannot delete the default security group for a VPC.")
    if any(group in one.groups for one in account.interfaces.all()):
        message = "Cannot delete the security group while interfaces are attached."
        raise conflict("security_group_interfaces_attached", message)
    group.gone = account.now()
    return Answer(204)


def create_security_group_rule(ask: Ask) -> Answer:
    group = given(ask, ask.account.groups, ask.path["security_group_id"])
    rule = _rule(ask, group, ask.body)
    group.rules.append(rule)
    return Answer(201, rule)


def _rule(ask: Ask, group: Group, wanted: dict[str, Any]) -> dict[str, Any]:
    low, high = wanted.get("port_min"), wanted.get("port_max")
    if (low is None) != (high is None):
        message = "Port range must be unset, or both a minimum and maximum port must be set for 'tcp' and 'udp'."
        raise Refusal(400, "security_group_port_range_both_or_neither", message)
    if low is not None and high is not None and high < low:
        message = "TCP/UDP max port cannot be less than min port."
        raise Refusal(400, "security_group_port_max_less_than_port_min", message)
    new = ask.account.id()
    remote = wanted.get("remote") or {"cidr_block": "0.0.0.0/0"}
    if "cidr_block" not in remote and "address" not in remote:
        remote = shapes.group_reference(ask.account, referred(ask.account.groups, remote, "remote.id"))
    return {
        "ip_version": "ipv4",
        "local": {"cidr_block": "0.0.0.0/0"},
        "name": f"rule-{new[-12:]}",
        **wanted,
        "id": new,
        "href": f"{ask.account.base}/security_groups/{group.id}/rules/{new}",
        "remote": remote,
        "resource_type": "security_group_rule",
    }


def list_security_group_rules(ask: Ask) -> Answer:
    return Answer(200, {"rules": given(ask, ask.account.groups, ask.path["security_group_id"]).rules})


def delete_security_group_rule(ask: Ask) -> Answer:
    group = given(ask, ask.account.groups, ask.path["security_group_id"])
    kept = [rule for rule in group.rules if rule["id"] != ask.path["id"]]
    if len(kept) == len(group.rules):
        raise Refusal(404, "not_found", f"The rule '{ask.path['id']}' could not be found.")
    group.rules = kept
    return Answer(204)


# --- keys ---


def create_key(ask: Ask) -> Answer:
    account, text = ask.account, ask.body["public_key"]
    within("keys in the region", len(list(account.keys.all())), account.quotas.keys)
    kind = ask.body.get("type") or "rsa"
    if not text.startswith("ssh-ed25519 " if kind == "ed25519" else "ssh-rsa "):
        raise Refusal(400, "key_parse_failure", "The public key value is not valid.", "public_key")
    if any(one.public_key == text for one in account.keys.all()):
        raise Refusal(400, "key_content_exists", "The same key content already exists.", "public_key")
    key = Key(
        id=account.id(),
        name=new_name(ask, account.keys, ask.body.get("name")),
        created=account.now(),
        resource_group=resource_group_of(ask),
        public_key=text,
        type=kind,
    )
    return Answer(201, shapes.key(account, account.keys.add(key)))


def list_keys(ask: Ask) -> Answer:
    return lists.shelf(ask, "keys", ask.account.keys, lambda one: shapes.key(ask.account, one))


def get_key(ask: Ask) -> Answer:
    return Answer(200, shapes.key(ask.account, given(ask, ask.account.keys, ask.path["id"])))


def delete_key(ask: Ask) -> Answer:
    given(ask, ask.account.keys, ask.path["id"]).gone = ask.account.now()
    return Answer(204)


HANDLERS: dict[str, Handler] = {
    handler.__name__: handler
    for handler in (
        create_key,
        create_public_gateway,
        create_security_group,
        create_security_group_rule,
        create_subnet,
        create_vpc,
        delete_key,
        delete_public_gateway,
        delete_security_group,
        delete_security_group_rule,
        delete_subnet,
        delete_vpc,
        get_key,
        get_public_gateway,
        get_security_group,
        get_subnet,
        get_subnet_public_gateway,
        get_vpc,
        list_keys,
        list_public_gateways,
        list_security_group_rules,
        list_security_groups,
        list_subnets,
        list_vpc_address_prefixes,
        list_vpcs,
        set_subnet_public_gateway,
        unset_subnet_public_gateway,
    )
}
