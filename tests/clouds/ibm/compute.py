"""Instances, their profiles and disks."""

from __future__ import annotations

import re
import uuid
from typing import Any

from tests.clouds.trouble import Trouble

from . import lists, machine_shapes, shapes
from .images import find_image, image_reference
from .profiles import PAGED_SINCE, VCPU_ENUM_SINCE, ZONES, Profile, body, profiles
from .refusals import Refusal, bad_field, conflict, not_found, not_offered, over_quota
from .requests import Answer, Ask, Handler, given, is_name, new_name, referred, resource_group_of, zone_of
from .world import Instance, Interface, Subnet, Volume, Vpc, region_of

#: Bytes of user data.
_USER_DATA_MAX = 65536
#: GB that a boot volume of the first generation of storage may have.
_BOOT_MIN, _BOOT_MAX = 10, 250
_FIRST_GENERATION = ("general-purpose", "5iops-tier", "10iops-tier", "custom")
#: As the API reference has it for `user_tags`.
_TAG = re.compile(r"[A-Za-z0-9:_ .-]{1,128}")
_DEFAULT_PROFILE = "bx2-2x8"


def _shape(ask: Ask, one: Instance) -> dict[str, Any]:
    return machine_shapes.instance(ask.account, one, image_reference(ask.account, one.image))


# --- create ---


def create_instance(ask: Ask) -> Answer:
    """Accepted at once; whether there is room for it shows later."""
    account, wanted = ask.account, ask.body
    zone = zone_of(wanted.get("zone"), "zone.name")
    profile = _profile(wanted, zone)
    image = find_image(account, wanted["image"])
    name = new_name(ask, account.instances, wanted.get("name"), region=region_of(zone))
    user_data = wanted.get("user_data") or ""
    if len(user_data.encode()) > _USER_DATA_MAX:
        raise bad_field("user_data", None, f"user_data must have {_USER_DATA_MAX} bytes at most")
    spot = (wanted.get("availability") or {}).get("class") == "spot"
    if spot and not profile.spot:
        message = f"The availability class 'spot' is not supported by the instance profile '{profile.name}'"
        raise bad_field("availability.class", "spot", message)
    _quota(ask, profile, zone)
    group, created = resource_group_of(ask), account.now()
    interface = _interface(ask, zone, name, group)
    one = Instance(
        # Of all that is in a zone, only instances have this sign after the zone's mark.
        id=account.id(zone).replace("-", "_", 1),
        name=name,
        created=created,
        resource_group=group,
        profile=profile,
        zone=zone,
        vpc=_vpc(ask, interface.subnet),
        image=image.id,
        interface=interface,
        boot=_boot_volume(ask, zone, name, group, image.id),
        user_data=user_data,
        spot=spot,
        keys=[referred(account.keys, key, "keys").id for key in wanted.get("keys") or []],
        **_policies(wanted),
    )
    late = ask.pick(Trouble.late)
    one.visible = created + (late.seconds if late else 0.0)
    interface.instance = one.boot.instance = one
    if interface.id not in {known.id for known in account.interfaces.all()}:
        account.interfaces.add(interface)
    account.volumes.add(one.boot)
    account.instances.add(one)
    doomed = ask.pick(Trouble.stockout, Trouble.accepted_then_failed) is not None
    return Answer(201, _shape(ask, one), account.boot(one, doomed=doomed))


def _profile(wanted: dict[str, Any], zone: str) -> Profile:
    name = str((wanted.get("profile") or {}).get("name", _DEFAULT_PROFILE))
    profile = profiles().get(name)
    if profile is None:
        raise bad_field("profile.name", name, f"The instance profile '{name}' could not be found")
    if zone not in profile.zones(region_of(zone)):
        raise not_offered(name, zone)
    return profile


def _quota(ask: Ask, profile: Profile, zone: str) -> None:
    """What failed or is stopped counts until it is deleted."""
    used = sum(i.profile.vcpus for i in ask.account.instances.all() if region_of(i.zone) == region_of(zone))
    if used + profile.vcpus > ask.account.quotas.vcpus:
        raise over_quota(
            f"{used} of the vCPUs in the region are in use, {profile.vcpus} were asked for", ask.account.quotas.vcpus
        )


def _policies(wanted: dict[str, Any]) -> dict[str, Any]:
    policy, metadata = wanted.get("availability_policy") or {}, wanted.get("metadata_service") or {}
    profile = (wanted.get("default_trusted_profile") or {}).get("target") or {}
    return {
        "host_failure": policy.get("host_failure", "restart"),
        "preemption": policy.get("preemption", "stop"),
        # Off unless it is asked for.
        "metadata": {"enabled": False, "protocol": "http", "response_hop_limit": 1, **metadata},
        "trusted_profile": str(profile.get("id") or profile.get("crn") or ""),
    }


def _interface(ask: Ask, zone: str, name: str, group: str) -> Interface:
    """The primary one: a network attachment's, or the older kind."""
    attachment, older = ask.body.get("primary_network_attachment"), ask.body.get("primary_network_interface")
    where = "primary_network_attachment.virtual_network_interface" if attachment else "primary_network_interface"
    wanted: dict[str, Any] = attachment["virtual_network_interface"] if attachment else older or {}
    account = ask.account
    _check_name((attachment or {}).get("name"), "primary_network_attachment.name")
    if attachment and set(wanted) & {"id", "crn", "href"}:
        found = referred(account.interfaces, wanted, where)
        if found.instance is not None:
            raise conflict("virtual_network_interface_in_use", f"{found.id} is attached to another instance")
        found.attachment, found.attachment_name = account.id(zone), attachment.get("name") or f"{name}-attachment"
        return found
    subnet = referred(account.subnets, wanted.get("subnet") or {}, f"{where}.subnet.id")
    if subnet.zone != zone:
        raise bad_field(f"{where}.subnet.id", subnet.id, f"The subnet is in zone {subnet.zone}, the instance in {zone}")
    default = account.groups.get(subnet.vpc.default_group)
    groups = [referred(account.groups, one, f"{where}.security_groups") for one in wanted.get("security_groups") or []]
    for one in groups:
        if one.vpc is not subnet.vpc:
            raise bad_field(f"{where}.security_groups", one.id, "The security group is not in the VPC of the subnet")
    return Interface(
        id=account.id(zone),
        name=str(wanted.get("name") or f"{name}-vni")[:63],
        created=account.now(),
        resource_group=group,
        subnet=subnet,
        groups=groups or ([default] if default else []),
        legacy=attachment is None,
        auto_delete=bool(wanted.get("auto_delete", True)),
        attachment=account.id(zone),
        attachment_name=(attachment or {}).get("name") or f"{name}-attachment",
    )


def _check_name(name: str | None, where: str) -> None:
    """Refusal for one that is malformed; of a part of an instance it need not be unique."""
    if name is not None and not is_name(name):
        raise bad_field(where, name, f"The name '{name}' is not valid")


def _vpc(ask: Ask, subnet: Subnet) -> Vpc:
    if ask.body.get("vpc") and referred(ask.account.vpcs, ask.body["vpc"], "vpc.id") is not subnet.vpc:
        raise bad_field("vpc.id", ask.body["vpc"].get("id"), "The VPC must be the one of the subnets")
    return subnet.vpc


def _boot_volume(ask: Ask, zone: str, name: str, group: str, image: str) -> Volume:
    account, attachment = ask.account, ask.body.get("boot_volume_attachment") or {}
    wanted = attachment.get("volume") or {}
    where = "boot_volume_attachment.volume"
    profile, capacity = str((wanted.get("profile") or {}).get("name", "general-purpose")), wanted.get("capacity", 100)
    first = profile in _FIRST_GENERATION
    if not first and profile != "sdp":
        raise bad_field(f"{where}.profile.name", profile, "A volume profile with the specified name is not found.")
    if capacity < _BOOT_MIN or (first and capacity > _BOOT_MAX):
        message = f"A boot volume of profile '{profile}' has {_BOOT_MIN} to {_BOOT_MAX} GB"
        raise bad_field(f"{where}.capacity", capacity, message)
    tags = list(wanted.get("user_tags") or [])
    for tag in tags:
        if not _TAG.fullmatch(tag):
            raise bad_field(f"{where}.user_tags", tag, f"The tag '{tag}' must match {_TAG.pattern}")
    _check_name(attachment.get("name"), "boot_volume_attachment.name")
    chosen = new_name(ask, account.volumes, wanted.get("name"), region=region_of(zone), where=f"{where}.name")
    return Volume(
        id=account.id(),
        name=chosen,
        created=account.now(),
        resource_group=group,
        zone=zone,
        capacity=capacity,
        profile=profile,
        tags=tags,
        image=image,
        delete_with_instance=bool(attachment.get("delete_volume_on_instance_delete", True)),
        attachment=account.id(zone),
        attachment_name=attachment.get("name") or f"{name}-boot",
    )


# --- the rest of an instance's life ---


def list_instances(ask: Ask) -> Answer:
    return lists.shelf(ask, "instances", ask.account.instances, lambda one: _shape(ask, one))


def get_instance(ask: Ask) -> Answer:
    return Answer(200, _shape(ask, given(ask, ask.account.instances, ask.path["id"])))


def delete_instance(ask: Ask) -> Answer:
    """Refused while it is being made and while it is going already, as IBM's list of error messages has it."""
    one = given(ask, ask.account.instances, ask.path["id"])
    if one.status in ("pending", "deleting"):
        message = f"The instance cannot be deleted in the current status: {one.status}"
        raise conflict("instance_delete_conflict", message)
    return Answer(202 if ask.version >= VCPU_ENUM_SINCE else 204, None, ask.account.delete(one))


def create_instance_action(ask: Ask) -> Answer:
    one, kind = given(ask, ask.account.instances, ask.path["instance_id"]), ask.body["type"]
    allowed = {"stop": ("running", "starting"), "start": ("stopped",), "reboot": ("running",)}[kind]
    if one.status not in allowed:
        raise conflict("instance_invalid_action", f"The action '{kind}' is not allowed in status '{one.status}'")
    account = ask.account
    work = account.stop(one) if kind == "stop" else account.start(one)
    new = str(uuid.uuid4())
    action = {
        "id": new,
        "href": f"{account.base}/instances/{one.id}/actions/{new}",
        "created_at": shapes.moment(account.now()),
        "status": "pending",
        "type": kind,
    }
    return Answer(201, action, work)


def get_instance_initialization(ask: Ask) -> Answer:
    one, account = given(ask, ask.account.instances, ask.path["id"]), ask.account
    keys = [key for key in account.keys.all() if key.id in one.keys]
    shape: dict[str, Any] = {
        "keys": [
            {k: v for k, v in shapes.key(account, key).items() if k in ("id", "name", "href", "crn", "fingerprint")}
            for key in keys
        ]
    }
    if one.trusted_profile:
        target = {"id": one.trusted_profile, "crn": account.crn("profile", one.trusted_profile)}
        shape["default_trusted_profile"] = {"auto_link": True, "target": {**target, "resource_type": "trusted_profile"}}
    return Answer(200, shape)


# --- profiles ---


def list_instance_profiles(ask: Ask) -> Answer:
    rows = [(at, _profile_body(ask, one)) for at, one in enumerate(profiles().values(), 1)]
    return lists.page(ask, "profiles", rows, paged=ask.version >= PAGED_SINCE)


def get_instance_profile(ask: Ask) -> Answer:
    one = profiles().get(ask.path["name"])
    if one is None:
        raise not_found("instance profile", ask.path["name"])
    return Answer(200, _profile_body(ask, one))


def _profile_body(ask: Ask, one: Profile) -> dict[str, Any]:
    """In all zones where it is: one address answers for all regions here."""
    shape = body(one, "us-south", ask.account.base, ask.version)
    shape["zones"] = [shapes.zone(ask.account, zone) for region in ZONES for zone in one.zones(region)]
    return shape


# --- disks ---


def list_volumes(ask: Ask) -> Answer:
    return lists.shelf(ask, "volumes", ask.account.volumes, lambda one: machine_shapes.volume(ask.account, one))


def get_volume(ask: Ask) -> Answer:
    return Answer(200, machine_shapes.volume(ask.account, given(ask, ask.account.volumes, ask.path["id"])))


def delete_volume(ask: Ask) -> Answer:
    one = given(ask, ask.account.volumes, ask.path["id"])
    if one.instance is not None:
        raise Refusal(409, "volume_in_use", f"The volume is attached to instance {one.instance.id}")
    one.gone = ask.account.now()
    return Answer(204)


def list_instance_volume_attachments(ask: Ask) -> Answer:
    one = given(ask, ask.account.instances, ask.path["instance_id"])
    return Answer(200, {"volume_attachments": [machine_shapes.volume_attachment(ask.account, one.boot)]})


HANDLERS: dict[str, Handler] = {
    handler.__name__: handler
    for handler in (
        create_instance,
        create_instance_action,
        delete_instance,
        delete_volume,
        get_instance,
        get_instance_initialization,
        get_instance_profile,
        get_volume,
        list_instance_profiles,
        list_instance_volume_attachments,
        list_instances,
        list_volumes,
    )
}
