"""Floating IPs, and the network interfaces that they are bound to."""

from __future__ import annotations

from typing import Any

from . import lists, shapes
from .refusals import Refusal, bad_field, conflict, not_found
from .requests import Answer, Ask, Handler, given, new_name, resource_group_of, within, zone_of
from .world import FloatingIp, Gateway, Interface, region_of

# --- floating IPs ---


def create_floating_ip(ask: Ask) -> Answer:
    """In a zone, or at once for an interface."""
    account = ask.account
    target = _target(ask, ask.body["target"]) if ask.body.get("target") else None
    zone = target.subnet.zone if target else zone_of(ask.body.get("zone"), "zone.name")
    present = sum(one.zone == zone for one in account.addresses.all())
    within("floating IPs in the zone", present, account.quotas.floating_ips_per_zone)
    address = FloatingIp(
        id=account.id(),
        name=new_name(ask, account.addresses, ask.body.get("name"), region=region_of(zone)),
        created=account.now(),
        resource_group=resource_group_of(ask),
        zone=zone,
        reserved=account.spare_address(),
    )
    if target is not None:
        _bind(ask, address, target)
    return Answer(201, shapes.address(account, account.addresses.add(address)))


def _target(ask: Ask, identity: dict[str, Any]) -> Interface:
    wanted = str(identity.get("id") or identity.get("crn") or identity.get("href") or "")
    for one in ask.account.interfaces.all():
        # The older name of a new interface does as well.
        if wanted.endswith(one.id) or (one.attachment and wanted.endswith(one.attachment)):
            return one
    raise bad_field("target.id", wanted, f"The target could not be found: '{wanted}'")


def _bind(ask: Ask, address: FloatingIp, target: Interface) -> None:
    if address.zone != target.subnet.zone:
        raise Refusal(
            400, "invalid_zone", "Please check whether the resources you are requesting are in the same zone."
        )
    if address.target is not None and address.target is not target:
        raise conflict("floating_ip_in_use", "The floating IP is in use.")
    if any(one.target is target and one is not address for one in ask.account.addresses.all()):
        raise conflict("target_in_use", "The target already has floating IP attached.")
    address.target = target


def list_floating_ips(ask: Ask) -> Answer:
    return lists.shelf(ask, "floating_ips", ask.account.addresses, lambda one: shapes.address(ask.account, one))


def get_floating_ip(ask: Ask) -> Answer:
    return Answer(200, shapes.address(ask.account, given(ask, ask.account.addresses, ask.path["id"])))


def update_floating_ip(ask: Ask) -> Answer:
    """A new name, another target, or, with `target: null`, none."""
    account = ask.account
    address = given(ask, account.addresses, ask.path["id"])
    if ask.body.get("name") not in (None, address.name):
        address.name = new_name(ask, account.addresses, ask.body["name"], region=region_of(address.zone))
    if "target" in ask.body:
        wanted = ask.body["target"]
        target = _target(ask, wanted) if wanted else None
        address.target = None
        if target is not None:
            _bind(ask, address, target)
    return Answer(200, shapes.address(account, address))


def delete_floating_ip(ask: Ask) -> Answer:
    """Takes it from its interface first; not from a public gateway."""
    address = given(ask, ask.account.addresses, ask.path["id"])
    if isinstance(address.target, Gateway):
        raise conflict("floating_ip_in_use", "The floating IP is in use.")
    address.target, address.gone = None, ask.account.now()
    return Answer(204)


# --- virtual network interfaces ---


def list_virtual_network_interfaces(ask: Ask) -> Answer:
    rows = [(one.number, shapes.interface(ask.account, one)) for one in ask.account.interfaces.all() if not one.legacy]
    return lists.page(ask, "virtual_network_interfaces", rows)


def _interface(ask: Ask, id: str) -> Interface:
    one = given(ask, ask.account.interfaces, id)
    if one.legacy:
        raise not_found("virtual network interface", id)
    return one


def get_virtual_network_interface(ask: Ask) -> Answer:
    return Answer(200, shapes.interface(ask.account, _interface(ask, ask.path["id"])))


def delete_virtual_network_interfaces(ask: Ask) -> Answer:
    one = _interface(ask, ask.path["id"])
    if one.instance is not None:
        raise conflict("virtual_network_interface_in_use", f"It is attached to instance {one.instance.id}")
    for address in _addresses(ask, one):
        address.target = None
    one.gone = ask.account.now()
    return Answer(202, shapes.interface(ask.account, one))


def _addresses(ask: Ask, one: Interface) -> list[FloatingIp]:
    return [address for address in ask.account.addresses.all() if address.target is one]


def list_network_interface_floating_ips(ask: Ask) -> Answer:
    one = _interface(ask, ask.path["virtual_network_interface_id"])
    rows = [(address.number, shapes.address_reference(ask.account, address)) for address in _addresses(ask, one)]
    return lists.page(ask, "floating_ips", rows)


def add_network_interface_floating_ip(ask: Ask) -> Answer:
    one = _interface(ask, ask.path["virtual_network_interface_id"])
    address = given(ask, ask.account.addresses, ask.path["id"])
    _bind(ask, address, one)
    return Answer(201, shapes.address_reference(ask.account, address))


def get_network_interface_floating_ip(ask: Ask) -> Answer:
    one = _interface(ask, ask.path["virtual_network_interface_id"])
    return Answer(200, shapes.address_reference(ask.account, _bound(ask, one)))


def remove_network_interface_floating_ip(ask: Ask) -> Answer:
    _bound(ask, _interface(ask, ask.path["virtual_network_interface_id"])).target = None
    return Answer(204)


def _bound(ask: Ask, one: Interface) -> FloatingIp:
    for address in _addresses(ask, one):
        if address.id == ask.path["id"]:
            return address
    raise not_found("floating IP", ask.path["id"])


# --- an instance's interfaces, in the new words and the old ---


def list_instance_network_attachments(ask: Ask) -> Answer:
    one = given(ask, ask.account.instances, ask.path["instance_id"])
    attachments = [] if one.interface.legacy else [shapes.attachment(ask.account, one.interface)]
    return Answer(200, {"network_attachments": attachments})


def list_instance_network_interfaces(ask: Ask) -> Answer:
    one = given(ask, ask.account.instances, ask.path["instance_id"])
    return Answer(200, {"network_interfaces": [shapes.legacy_interface(ask.account, one.interface)]})


def list_instance_network_interface_floating_ips(ask: Ask) -> Answer:
    addresses = _addresses(ask, _older(ask))
    return Answer(200, {"floating_ips": [shapes.address(ask.account, address) for address in addresses]})


def add_instance_network_interface_floating_ip(ask: Ask) -> Answer:
    address = given(ask, ask.account.addresses, ask.path["id"])
    _bind(ask, address, _older(ask))
    return Answer(201, shapes.address(ask.account, address))


def remove_instance_network_interface_floating_ip(ask: Ask) -> Answer:
    _bound(ask, _older(ask)).target = None
    return Answer(204)


def _older(ask: Ask) -> Interface:
    one = given(ask, ask.account.instances, ask.path["instance_id"]).interface
    if ask.path["network_interface_id"] not in (one.id, one.attachment):
        raise not_found("network interface", ask.path["network_interface_id"])
    return one


HANDLERS: dict[str, Handler] = {
    handler.__name__: handler
    for handler in (
        add_instance_network_interface_floating_ip,
        add_network_interface_floating_ip,
        create_floating_ip,
        delete_floating_ip,
        delete_virtual_network_interfaces,
        get_floating_ip,
        get_network_interface_floating_ip,
        get_virtual_network_interface,
        list_floating_ips,
        list_instance_network_attachments,
        list_instance_network_interface_floating_ips,
        list_instance_network_interfaces,
        list_network_interface_floating_ips,
        list_virtual_network_interfaces,
        remove_instance_network_interface_floating_ip,
        remove_network_interface_floating_ip,
        update_floating_ip,
    )
}
