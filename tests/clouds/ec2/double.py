"""The double itself: each call recorded, spoiled where a rule says so, and answered."""

from __future__ import annotations

import time
from collections.abc import Callable

import botocore.model
import botocore.session

from tests.clouds import control
from tests.clouds.double import Inventory
from tests.clouds.machines import Machines
from tests.clouds.metadata import Ec2Metadata
from tests.clouds.server import Cut, Reply, Request, Server
from tests.clouds.trouble import Script, Trouble

from . import errors
from .answers import Answers
from .backend import Moto, image_id
from .launch import Answered, tags_of, vcpus_of
from .protocol import Call, Refused, code_of, error_reply, parse, understand
from .records import RUNNING, Record, Records

ACCESS_KEY = "AKIADOUBLEOFEC2VMRUN"
#: A network for documentation: nobody is let in by it.
_NETWORK = "198.51.100.7/32"
#: Services whose calls are neither recorded nor spoiled: the store is another double's matter.
_STORE = "s3"


class Ec2Double:
    """One account of EC2, with what stands beside it, at one address for all regions."""

    def __init__(
        self,
        machines: Machines,
        host: str = "127.0.0.1",
        script: Script | None = None,
        port: int = 0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.script = script or Script()
        self._moto = Moto()
        self._machines = machines
        self._records = Records(self._moto, machines, now)
        self._ec2 = Answers(self._moto, self._records, machines, self.script, now)
        self._server = Server(self._answer, host, port)
        self.endpoint = self._server.endpoint
        self.metadata: Ec2Metadata | None = None

    # --- what a test turns ---

    @property
    def account(self) -> str:
        """The account's number."""
        return self._moto.account

    @property
    def quotas(self):
        """vCPUs that may run at once."""
        return self._ec2.launcher.quotas

    @property
    def prices(self):
        """What types cost."""
        return self._ec2.beside.prices

    @property
    def shown(self) -> float:
        """Seconds for which an instance that is gone is still shown as terminated."""
        return self._records.shown

    @shown.setter
    def shown(self, seconds: float) -> None:
        self._records.shown = seconds

    def refuse_shutdown_behavior_of_spot(self) -> None:
        """From now on `InstanceInitiatedShutdownBehavior` is refused for spot instances, as some have seen it."""
        self._ec2.launcher.spot_refuses_shutdown_behavior = True

    # --- Double ---

    def settings(self) -> dict[str, object]:
        # Never the address of the real service, which this computer may have, too.
        metadata = self.endpoint if self.metadata is None else self.metadata.endpoint
        return {
            "endpoint": self.endpoint,
            "metadata_endpoint": metadata,
            "regions": ["us-east-1"],
            "ssh_from": [_NETWORK],
        }

    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": "double",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def inventory(self) -> Inventory:
        self._records.settle()
        found = Inventory({record.id: record.state for record in self._records.living()})
        with self._moto.lock:
            for region in self._moto.regions():
                found.disks += list(region.volumes)
                found.addresses += [one.allocation_id or one.public_ip for one in region.addresses]
                found.keys += [one.name for one in region.key_pairs.values()]
                groups = [group for of_vpc in region.groups.values() for group in of_vpc.values()]
                found.groups += [group.id for group in groups if group.name != "default"]
                found.networks += [vpc.id for vpc in region.vpcs.values() if not vpc.is_default]
        return found

    def power_off(self, name: str) -> None:
        record = self._records.named(name)
        if record.machine:
            self._machines.stop(record.id)
            self._records.settle()
        elif record.shutdown == "terminate":
            self._records.terminate(record, "inside")
        else:
            self._records.stop(record, "inside")

    def stop_by_hand(self, name: str) -> None:
        self._records.stop(self._records.named(name), "user")

    def delete_by_hand(self, name: str) -> None:
        self._records.terminate(self._records.named(name), "user")

    def preempt(self, name: str) -> None:
        """ValueError for an instance that is not a spot one."""
        record = self._records.named(name)
        if not record.spot:
            raise ValueError(f"{record.id} is not a spot instance")
        self._records.terminate(record, "spot")

    def open_metadata(self, host: str) -> None:
        self.metadata = Ec2Metadata(self._at, host)

    def announce(self, name: str, *, likely: bool = False) -> None:
        record = self._records.named(name)
        if not record.spot or self.metadata is None:
            raise ValueError(f"{record.id} is not a spot instance with metadata")
        self.metadata.announce(record.id, "likely" if likely else "certain")

    def _at(self, address: str) -> str:
        """The instance that has this address."""
        living = [record for record in self._records.living() if record.machine]
        return next((record.id for record in living if self._machines.address(record.id) == address), "")

    def plant(self, name: str, *, tags: dict[str, str] | None = None, region: str = "", zone: str = "") -> str:
        region = region or zone[:-1] or "us-east-1"
        given = {
            "ImageId": image_id(region, "amd64"),
            "InstanceType": "t3.micro",
            "MinCount": "1",
            "MaxCount": "1",
            "Placement.AvailabilityZone": zone or f"{region}a",
            "TagSpecification.1.ResourceType": "instance",
        }
        for number, (key, value) in enumerate({"Name": name, **(tags or {})}.items(), 1):
            given |= {f"TagSpecification.1.Tag.{number}.Key": key, f"TagSpecification.1.Tag.{number}.Value": value}
        with self._moto.lock:
            reply = self._moto.query(region, "RunInstances", given)
            assert reply.status == 200, reply.body
            reservation = str(parse(reply.body).findtext("reservationId"))
            (instance,) = self._moto.region(region).reservations[reservation].instances
            record = Record(
                id=instance.id,
                region=region,
                zone=given["Placement.AvailabilityZone"],
                instance_type=given["InstanceType"],
                vcpus=vcpus_of(given["InstanceType"]),
                token="",
                spot=False,
                shutdown="stop",
                name=name,
                machine=False,
                history=[],
                moto=instance,
                moto_reservation=reservation,
            )
            self._records.move(record, RUNNING)
            self._records.add(record)
        return record.id

    def close(self) -> None:
        for record in list(self._records.living()):
            if record.machine:
                self._machines.destroy(record.id)
        self._moto.close()
        if self.metadata is not None:
            self.metadata.close()
        self._server.close()

    # --- calls ---

    def _answer(self, request: Request) -> Reply:
        if (reply := control.answer(self, request)) is not None:
            return reply
        call = understand(request)
        if call.service == _STORE:
            return self._moto.send(request)
        about = self._about(call)
        noted = self.script.record(call.operation, **about)
        where = {key: str(about.get(key, "")) for key in ("instance_type", "zone", "region")}
        try:
            if self.script.pick(call.operation, Trouble.request_lost, **where):
                raise Cut
            reply = self._refusable(call, where)
            noted.outcome = code_of(reply) or "ok"
            if reply.status < 400 and self.script.pick(call.operation, Trouble.reply_lost, **where):
                raise Cut
        except Cut:
            noted.outcome = "cut"
            raise
        return reply

    def _refusable(self, call: Call, where: dict[str, str]) -> Reply:
        try:
            self._check_caller(call)
            if rule := self.script.pick(call.operation, *errors.EVERYWHERE, **where):
                errors.say(rule.trouble, call, account=self.account, **where)
            if call.service == "ec2":
                return self._ec2.answer(call)
            return self._ec2.beside.answer(call) or self._moto.send(call.request)
        except Refused as refused:
            return error_reply(call, refused)
        except Answered as answered:
            return answered.reply
        except (NotImplementedError, botocore.model.OperationNotFoundError) as error:
            return error_reply(call, Refused("InvalidAction", f"the double does not do this: {error}"))

    def _check_caller(self, call: Call) -> None:
        if call.access_key == ACCESS_KEY or call.access_key.startswith("ASIA"):
            return
        if not call.service:
            raise Refused("MissingAuthenticationToken", "Missing Authentication Token", 403)
        if call.service == "ec2":
            raise Refused("AuthFailure", "AWS was not able to validate the provided access credentials", 401)
        raise Refused("InvalidClientTokenId", "The security token included in the request is invalid.", 403)

    def _about(self, call: Call) -> dict[str, object]:
        """What a call is about, in plain values."""
        given = call.parameters
        subnet = given.get("SubnetId") or given.get("NetworkInterface.1.SubnetId", "")
        about: dict[str, object] = {
            "region": call.region,
            "service": call.service,
            "instance_type": given.get("InstanceType", ""),
            "zone": given.get("Placement.AvailabilityZone", "") or self._zone_of(call.region, subnet),
            "subnet": subnet,
            "token": given.get("ClientToken", ""),
            "image": given.get("ImageId", ""),
            "name": tags_of(call, "instance").get("Name", ""),
            "ids": call.values("InstanceId"),
            "spot": given.get("InstanceMarketOptions.MarketType", "") == "spot",
            "dry_run": given.get("DryRun", "") == "true",
        }
        if about["ids"]:
            about["id"] = call.values("InstanceId")[0]
        return {key: value for key, value in about.items() if value not in ("", [], False)}

    def _zone_of(self, region: str, subnet: str) -> str:
        if not subnet:
            return ""
        with self._moto.lock:
            for of_zone in self._moto.region(region).subnets.values():
                if subnet in of_zone:
                    return str(of_zone[subnet].availability_zone)
        return ""
