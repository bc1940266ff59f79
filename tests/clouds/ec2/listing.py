"""How instances are shown: moto's XML with what we know better, EC2's filters, and the past where lists lag."""

from __future__ import annotations

import copy
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator

from .backend import Moto
from .protocol import Call, Refused, element, parse, put, values
from .records import CODES, PENDING, SHUTTING_DOWN, TERMINATED, Record, Records

#: EC2's filters, as paths in an instance.
_FILTERS = {
    "architecture": "architecture",
    "availability-zone": "placement/availabilityZone",
    "client-token": "clientToken",
    "image-id": "imageId",
    "instance-id": "instanceId",
    "instance-lifecycle": "instanceLifecycle",
    "instance-state-code": "instanceState/code",
    "instance-state-name": "instanceState/name",
    "instance-type": "instanceType",
    "instance.group-id": "groupSet/item/groupId",
    "instance.group-name": "groupSet/item/groupName",
    "ip-address": "ipAddress",
    "key-name": "keyName",
    "private-ip-address": "privateIpAddress",
    "root-device-name": "rootDeviceName",
    "state-reason-code": "stateReason/code",
    "subnet-id": "subnetId",
    "tag-key": "tagSet/item/key",
    "vpc-id": "vpcId",
}


def reservations(moto: Moto, records: Records, region: str, at: float) -> Iterator[ET.Element]:
    """The region's reservations as they were to be seen at a time."""
    reply = moto.query(region, "DescribeInstances", {"MaxResults": "1000000"})
    assert reply.status == 200, reply.body
    for reservation in parse(reply.body).findall("reservationSet/item"):
        instances = reservation.find("instancesSet")
        assert instances is not None
        for instance in list(instances):
            record = records.find(str(instance.findtext("instanceId")))
            state = record.state_at(at) if record else None
            if record is None or state is None:
                instances.remove(instance)
            else:
                show(instance, record, state)
        if len(instances):
            yield reservation


def show(instance: ET.Element, record: Record, state: str) -> None:
    """Say of an instance what the real cloud says of one in this state."""
    put(instance, "instanceState/name", state)
    put(instance, "instanceState/code", str(CODES[state]))
    put(instance, "clientToken", record.token)
    if record.spot:
        put(instance, "instanceLifecycle", "spot")
        put(instance, "spotInstanceRequestId", f"sir-{record.id[-8:]}")
    if state in (PENDING, TERMINATED) or not record.public:
        put(instance, "ipAddress", None)
        put(instance, "dnsName", "")
        for interface in instance.iter():
            put(interface, "association", None)
    if state == TERMINATED:
        for tag in ("privateIpAddress", "networkInterfaceSet", "vpcId", "subnetId", "blockDeviceMapping", "groupSet"):
            put(instance, tag, None)
        put(instance, "privateDnsName", "")
    if state not in (TERMINATED, SHUTTING_DOWN, "stopped", "stopping"):
        put(instance, "stateReason", None)


def only_these(found: list[ET.Element], ids: list[str]) -> list[ET.Element]:
    """Those reservations with only the instances asked for. Refused when one of them is not there."""
    have = {one.findtext("instanceId") for reservation in found for one in reservation.findall("instancesSet/item")}
    for one in ids:
        if not re.fullmatch(r"i-[0-9a-f]{8}([0-9a-f]{9})?", one):
            raise Refused("InvalidInstanceID.Malformed", f'Invalid id: "{one}"')
    if missing := [one for one in ids if one not in have]:
        several = "s" if len(missing) > 1 else ""
        does = "do" if several else "does"
        raise Refused("InvalidInstanceID.NotFound", f"The instance ID{several} '{', '.join(missing)}' {does} not exist")
    return _kept(found, lambda one: one.findtext("instanceId") in ids)


def filtered(found: list[ET.Element], call: Call) -> list[ET.Element]:
    """Those that pass the call's filters. Refused for a filter that EC2 does not know."""
    for given in call.members("Filter"):
        name, wanted = given.get("Name", ""), [_pattern(text) for text in values(given, "Value")]
        if name == "reservation-id":
            found = [one for one in found if _any(wanted, [one.findtext("reservationId")])]
        else:
            found = _kept(found, lambda one, n=name, w=wanted: _any(w, _of(one, n)))
    return found


def _of(instance: ET.Element, name: str) -> list[str | None]:
    if name.startswith("tag:"):
        key = name.removeprefix("tag:")
        return [tag.findtext("value") for tag in instance.findall("tagSet/item") if tag.findtext("key") == key]
    if name not in _FILTERS:
        raise Refused("InvalidParameterValue", f"The filter '{name}' is invalid")
    return [one.text for one in instance.findall(_FILTERS[name])]


def _pattern(text: str) -> re.Pattern[str]:
    """EC2's wildcards: `*`, `?`, and a backslash before one that is meant itself."""
    parts = re.findall(r"\\.|[*?]|[^\\*?]+|\\", text)
    wild = {"*": ".*", "?": "."}
    return re.compile("".join(wild.get(p) or re.escape(p.removeprefix("\\")) for p in parts), re.DOTALL)


def _any(wanted: list[re.Pattern[str]], found: list[str | None]) -> bool:
    return any(pattern.fullmatch(text or "") for pattern in wanted for text in found)


def _kept(found: list[ET.Element], keep) -> list[ET.Element]:
    result = []
    for reservation in found:
        one = copy.deepcopy(reservation)
        instances = one.find("instancesSet")
        assert instances is not None
        for instance in list(instances):
            if not keep(instance):
                instances.remove(instance)
        if len(instances):
            result.append(one)
    return result


def changes(records: list[tuple[Record, str, str]]) -> ET.Element:
    """The list of instances with their states before and after, as terminate, stop and start answer."""
    return element("instancesSet", *(_change(record, before, after) for record, before, after in records))


def _change(record: Record, before: str, after: str) -> ET.Element:
    item = element("item", element("instanceId", text=record.id))
    for tag, state in (("currentState", after), ("previousState", before)):
        put(item, f"{tag}/code", str(CODES[state]))
        put(item, f"{tag}/name", state)
    return item
