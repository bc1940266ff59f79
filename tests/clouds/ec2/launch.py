"""RunInstances: what is asked for, whether EC2 would grant it, once for each client token, and a machine under it."""

from __future__ import annotations

import base64
import binascii
import gzip
import hashlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.clouds.machines import Machines
from tests.clouds.server import Reply
from tests.clouds.trouble import Rule, Script, Trouble

from . import errors
from .backend import ARCHITECTURES, PARAMETER, Moto, image_id, type_data, zones_of
from .protocol import Call, Refused, parse
from .quotas import Quotas, bucket_of
from .records import PENDING, RUNNING, Record, Records

#: Bytes of user data before base64.
_USER_DATA = 16384
#: Seconds that a client token is remembered.
_TOKENS = 24 * 3600.0
#: What is no part of the request that a token stands for.
_ENVELOPE = ("Action", "Version", "ClientToken", "DryRun")


@dataclass
class Wish:
    """A call of RunInstances, understood and found to be in order."""

    call: Call
    instance_type: str
    zone: str
    subnet: str
    image: str
    spot: bool
    token: str
    name: str
    user_data: str
    count: int

    def about(self) -> dict[str, str]:
        return {"instance_type": self.instance_type, "zone": self.zone, "region": self.call.region}


@dataclass
class _Granted:
    fingerprint: str
    reservation: str
    at: float


class Launcher:
    """Takes wishes, and grants them."""

    def __init__(
        self,
        moto: Moto,
        records: Records,
        machines: Machines,
        script: Script,
        now: Callable[[], float],
    ) -> None:
        self._moto = moto
        self._records = records
        self._machines = machines
        self._script = script
        self._now = now
        self._tokens: dict[tuple[str, str], _Granted] = {}
        self.quotas = Quotas()
        #: Whether `InstanceInitiatedShutdownBehavior` is refused for spot instances even when it is `terminate`.
        self.spot_refuses_shutdown_behavior = False

    def run(self, call: Call) -> tuple[str, bool]:
        """The id of the reservation, and whether it is a new one."""
        with self._records.lock:
            token = call.parameters.get("ClientToken") or str(uuid.uuid4())
            if earlier := self._granted(call, token):
                return earlier, False
            wish = self._wish(call, token)
            late, doomed = self._troubles(wish)
            made = self._create(wish, late, doomed)
            self._tokens[call.region, token] = _Granted(_fingerprint(call), made[0].moto_reservation, self._now())
        for record in made:
            self._boot(record, wish)
        return made[0].moto_reservation, True

    def _granted(self, call: Call, token: str) -> str | None:
        """The reservation that an earlier call with this token got."""
        earlier = self._tokens.get((call.region, token))
        if earlier is None or self._now() - earlier.at > _TOKENS:
            return None
        if earlier.fingerprint != _fingerprint(call):
            raise Refused(
                "IdempotentParameterMismatch",
                "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
            )
        # What is long gone is forgotten, its token is not.
        theirs = [one for one in self._records.of_region(call.region) if one.moto_reservation == earlier.reservation]
        if all(one.is_gone for one in theirs):
            raise Refused(
                "IdempotentInstanceTerminated",
                "The request to launch an instance uses the same client token as a previous request for which the "
                "instance has been terminated.",
            )
        return earlier.reservation

    def _wish(self, call: Call, token: str) -> Wish:
        given = call.parameters
        if len(token) > 64 or not token.isascii():
            raise Refused("InvalidParameterValue", "The client token is not of at most 64 ASCII characters")
        instance_type = given.get("InstanceType", "m1.small")
        data = type_data(instance_type)
        if data is None:
            raise Refused("InvalidParameterValue", f"Invalid value '{instance_type}' for InstanceType.")
        backend = self._moto.region(call.region)
        subnet, zone = _place(backend, given)
        image = _image(backend, call.region, given, data)
        wish = Wish(
            call=call,
            instance_type=instance_type,
            zone=zone,
            subnet=subnet,
            image=image,
            spot=given.get("InstanceMarketOptions.MarketType") == "spot",
            token=token,
            name=tags_of(call, "instance").get("Name", ""),
            user_data=_user_data(given.get("UserData", "")),
            count=int(given.get("MinCount", "1")),
        )
        self._check_shutdown(wish)
        _check_disks(call)
        return wish

    def _check_shutdown(self, wish: Wish) -> None:
        behavior = wish.call.parameters.get("InstanceInitiatedShutdownBehavior")
        if behavior not in (None, "stop", "terminate"):
            raise Refused(
                "InvalidParameterValue",
                f"Value ({behavior}) for parameter instanceInitiatedShutdownBehavior is invalid",
            )
        if wish.spot and behavior and (behavior == "stop" or self.spot_refuses_shutdown_behavior):
            raise Refused(
                "InvalidParameterCombination",
                "The parameter instanceInitiatedShutdownBehavior is not supported for spot instances.",
            )

    def _troubles(self, wish: Wish) -> tuple[float, bool]:
        """Refuses where it must; seconds that the instances will be late, and whether they will fail."""
        about = wish.about()
        rule = self._script.pick("RunInstances", *errors.CREATING, **about)
        told = {**about, "spot": "spot" if wish.spot else "", "image": wish.image}
        if rule is not None:
            errors.say(rule.trouble, wish.call, **told)
        offered = zones_of(wish.instance_type, wish.call.region)
        if wish.zone not in offered:
            errors.say(Trouble.not_offered, wish.call, **told, elsewhere=", ".join(offered))
        bucket = bucket_of(wish.instance_type, spot=wish.spot)
        used = sum(
            one.vcpus
            for one in self._records.living()
            if one.region == wish.call.region and bucket_of(one.instance_type, spot=one.spot) == bucket
        )
        limit = self.quotas.limit(wish.call.region, bucket)
        if used + vcpus_of(wish.instance_type) * wish.count > limit:
            errors.say(Trouble.quota, wish.call, **told, limit=f"{limit:g}")
        late: Rule | None = self._script.pick("RunInstances", Trouble.late, **about)
        doomed = self._script.pick("RunInstances", Trouble.accepted_then_failed, **about) is not None
        return (late.seconds if late else 0.0), doomed

    def _create(self, wish: Wish, late: float, doomed: bool) -> list[Record]:
        """The instances in moto, all that they bring in order, and what is known of them beside."""
        reply = self._moto.query(wish.call.region, "RunInstances", _for_moto(wish))
        if reply.status >= 400:
            raise Answered(reply)
        reservation = str(parse(reply.body).findtext("reservationId"))
        backend, made = self._moto.region(wish.call.region), []
        for instance in backend.reservations[reservation].instances:
            _complete(backend, instance, wish)
            record = Record(
                id=instance.id,
                region=wish.call.region,
                zone=wish.zone,
                instance_type=wish.instance_type,
                vcpus=vcpus_of(wish.instance_type),
                token=wish.token,
                spot=wish.spot,
                shutdown="terminate" if wish.spot else instance.instance_initiated_shutdown_behavior,
                name=wish.name,
                machine=True,
                history=[],
                visible_from=self._now() + late if late else 0.0,
                doomed=doomed,
                public=instance.nics[0].public_ip is not None,
                moto=instance,
                moto_reservation=reservation,
            )
            self._records.move(record, PENDING)
            self._records.add(record)
            made.append(record)
        return made

    def _boot(self, record: Record, wish: Wish) -> None:
        """A machine under it; outside the lock, as that may take its time."""
        if record.doomed:
            return
        memory = int(type_data(wish.instance_type)["MemoryInfo"]["SizeInMiB"]) << 20  # type: ignore[index]
        try:
            address = self._machines.boot(record.id, wish.user_data, vcpus=record.vcpus, memory=memory)
        except BaseException:
            self._records.terminate(record, "internal")
            raise
        with self._records.lock:
            if record.state == PENDING:
                self._records.locate(record, address)
                self._records.move(record, RUNNING)
                return
        # It was terminated while it booted.
        if record.is_gone:
            self._machines.destroy(record.id)


class Answered(Exception):
    """moto has refused by itself, in EC2's words."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.body)
        self.reply = reply


def vcpus_of(instance_type: str) -> int:
    data = type_data(instance_type)
    return int(data["VCpuInfo"]["DefaultVCpus"]) if data else 0


def tags_of(call: Call, kind: str) -> dict[str, str]:
    """The tags that the call gives to resources of a kind."""
    found: dict[str, str] = {}
    for specification in call.members("TagSpecification"):
        if specification.get("ResourceType") == kind:
            number = 1
            while (key := specification.get(f"Tag.{number}.Key")) is not None:
                found[key] = specification.get(f"Tag.{number}.Value", "")
                number += 1
    return found


def _fingerprint(call: Call) -> str:
    kept = sorted((key, value) for key, value in call.parameters.items() if key not in _ENVELOPE)
    return hashlib.sha256(repr(kept).encode()).hexdigest()


def _place(backend: Any, given: dict[str, str]) -> tuple[str, str]:
    """Subnet and zone: those asked for, or the default subnet of the zone, or of any."""
    subnet = given.get("SubnetId") or given.get("NetworkInterface.1.SubnetId", "")
    known = {one.id: one for zone in backend.subnets.values() for one in zone.values()}
    if subnet:
        if subnet not in known:
            raise Refused("InvalidSubnetID.NotFound", f"The subnet ID '{subnet}' does not exist")
        return subnet, str(known[subnet].availability_zone)
    zone = given.get("Placement.AvailabilityZone", "")
    for one in sorted(known.values(), key=lambda one: str(one.availability_zone)):
        if one.default_for_az and zone in ("", one.availability_zone):
            return one.id, str(one.availability_zone)
    raise Refused("InvalidParameterValue", f"Invalid availability zone: [{zone}]" if zone else "No default subnet")


def _image(backend: Any, region: str, given: dict[str, str], data: Any) -> str:
    image = given.get("ImageId", "")
    if image.startswith("resolve:ssm:"):
        path = image.removeprefix("resolve:ssm:")
        image = next((image_id(region, arch) for arch in ARCHITECTURES if path == PARAMETER.format(arch)), image)
    if not image:
        raise Refused("MissingParameter", "The request must contain the parameter ImageId")
    if not image.startswith("ami-"):
        raise Refused("InvalidAMIID.Malformed", f'Invalid id: "{image}"')
    if image not in backend.amis:
        raise Refused("InvalidAMIID.NotFound", f"The image id '[{image}]' does not exist")
    architecture = backend.amis[image].architecture
    supported = data["ProcessorInfo"]["SupportedArchitectures"]
    if architecture not in supported:
        raise Refused(
            "InvalidParameterValue",
            f"The architecture '{','.join(supported)}' of the specified instance type does not match the architecture "
            f"'{architecture}' of the specified AMI.",
        )
    return image


def _user_data(encoded: str) -> str:
    """The text that cloud-init is to get: out of base64, and out of gzip where it is in that."""
    try:
        raw = base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise Refused("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data") from error
    if len(raw) > _USER_DATA:
        raise Refused("InvalidParameterValue", f"User data is limited to {_USER_DATA} bytes")
    return (gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw).decode()


def _check_disks(call: Call) -> None:
    for mapping in call.members("BlockDeviceMapping"):
        kind = mapping.get("Ebs.VolumeType", "gp2")
        throughput, iops = int(mapping.get("Ebs.Throughput", 0)), int(mapping.get("Ebs.Iops", 0))
        if throughput and kind != "gp3":
            raise Refused(
                "InvalidParameterCombination", f"The parameter throughput is not supported for {kind} volumes."
            )
        if throughput > 250 and throughput > (iops or 3000) * 0.25:
            raise Refused(
                "InvalidParameterValue",
                f"Throughput (MiBps) to iops ratio of {throughput / (iops or 3000):f} is too high; "
                "maximum is 0.250000 MiBps per iops.",
            )


def _for_moto(wish: Wish) -> dict[str, str]:
    """The request as moto needs it to do what EC2 does."""
    given = {key: value for key, value in wish.call.parameters.items() if key not in ("Action", "Version", "DryRun")}
    given["ClientToken"], given["ImageId"] = wish.token, wish.image
    if any(key.startswith("NetworkInterface.") for key in given):
        given["NetworkInterface.1.SubnetId"] = wish.subnet
        given.pop("SubnetId", None)
    else:
        given["SubnetId"] = wish.subnet
    devices = list(wish.call.members("BlockDeviceMapping"))
    for number, mapping in enumerate(devices, 1):
        # What the image says of its root disk holds for what the request does not say.
        if mapping.get("DeviceName") == "/dev/sda1":
            given.setdefault(f"BlockDeviceMapping.{number}.Ebs.DeleteOnTermination", "true")
            given.setdefault(f"BlockDeviceMapping.{number}.Ebs.VolumeSize", "8")
    if devices and not any(mapping.get("DeviceName") == "/dev/sda1" for mapping in devices):
        root = f"BlockDeviceMapping.{len(devices) + 1}"
        given |= {f"{root}.DeviceName": "/dev/sda1", f"{root}.Ebs.VolumeSize": "8"}
        given[f"{root}.Ebs.DeleteOnTermination"] = "true"
    return given


def _complete(backend: Any, instance: Any, wish: Wish) -> None:
    """What moto leaves out: the interface that goes with its instance, tags of it, the speed of disks."""
    interfaces = list(wish.call.members("NetworkInterface"))
    for number, interface in instance.nics.items():
        asked = interfaces[number] if number < len(interfaces) else {}
        if "NetworkInterfaceId" not in asked:
            interface.delete_on_termination = asked.get("DeleteOnTermination", "true") == "true"
        interface.add_tags(tags_of(wish.call, "network-interface"))
    instance.security_groups = instance.security_groups or list(instance.nics[0]._group_set)
    speeds = {one.get("DeviceName"): one for one in wish.call.members("BlockDeviceMapping")}
    for device, block in instance.get_block_device_mapping:
        volume = backend.volumes[block.volume_id]
        asked = speeds.get(device, {})
        if volume.volume_type == "gp3":
            volume.iops = int(asked.get("Ebs.Iops", 3000))
            volume.throughput = int(asked.get("Ebs.Throughput", 125))
