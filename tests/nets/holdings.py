"""What an account's own books say that a machine has: its disks, its addresses, its keys."""

from __future__ import annotations

from dataclasses import dataclass

from tests.clouds.double import Double
from tests.clouds.ec2 import Ec2Double
from tests.clouds.ibm import IbmDouble
from tests.clouds.ibm.world import Interface

#: What each machine has, and what goes with it, wherever it is. Keys go in user data, and no cloud is given one.
KINDS = ("address", "disk")


@dataclass(frozen=True, order=True)
class Thing:
    """A disk, an address or a key in the books of an account."""

    kind: str
    id: str
    #: Which machine has it, by the books' own name for it; "" while none has.
    machine: str = ""

    @property
    def known_as(self) -> tuple[str, str]:
        """By what it is found again when no machine has it any more."""
        return self.kind, self.id


def things(double: Double) -> list[Thing]:
    """All of the account's, also an address that is a machine's only while it runs."""
    if isinstance(double, Ec2Double):
        return _of_ec2(double)
    return _of_ibm(double) if isinstance(double, IbmDouble) else _of_gce(double)


def named(double: Double, name: str) -> str:
    """What the books call the machine of that name. KeyError if there never was one."""
    if isinstance(double, Ec2Double):
        return double._records.named(name).id
    # On Google's cloud machines are known by their names.
    return double._find(name).id if isinstance(double, IbmDouble) else name


def held_by(machine: str, there: list[Thing]) -> list[Thing]:
    """The machine's own, of all that is there."""
    return sorted(each for each in there if each.machine == machine)


def kinds(held: list[Thing]) -> tuple[str, ...]:
    """Of what there is something."""
    return tuple(sorted({each.kind for each in held}))


def left(held: list[Thing], there: list[Thing]) -> list[Thing]:
    """What is still there of what a machine had, whoever has it now."""
    known = {each.known_as for each in there}
    return [each for each in held if each.known_as in known]


def _of_ec2(double: Ec2Double) -> list[Thing]:
    # Of one moment: machines end while somebody looks.
    with double._moto.lock:
        double._records.settle()
        found = [
            Thing("address", f"{record.id} {interface.public_ip}", record.id)
            for record in double._records.living()
            for interface in record.moto.nics.values()
            if record.state == "running" and interface.public_ip
        ]
        for region in double._moto.regions():
            for volume in region.volumes.values():
                found.append(Thing("disk", volume.id, volume.attachment.instance.id if volume.attachment else ""))
            found += [
                Thing("address", one.allocation_id or one.public_ip, one.instance.id if one.instance else "")
                for one in region.addresses
            ]
            found += [Thing("key", pair.name) for pair in region.key_pairs.values()]
    return found


def _of_gce(double: Double) -> list[Thing]:
    project = double._project  # type: ignore[attr-defined]
    found = []
    with project.lock:
        project.life.settle()
        for key, instance in project.store.of("instances"):
            for interface in instance["networkInterfaces"]:
                public = [one["natIP"] for one in interface.get("accessConfigs", ()) if "natIP" in one]
                found += [Thing("address", f"{key.path} {address}", key.name) for address in public]
        for kind, plural in (("disk", "disks"), ("address", "addresses")):
            for key, one in project.store.of(plural):
                users = [str(link).rpartition("/")[2] for link in one.get("users", ())]
                found.append(Thing(kind, key.path, users[0] if users else ""))
    return found


def _of_ibm(double: IbmDouble) -> list[Thing]:
    account = double.account
    with account.lock:
        account.settle()
        found = [Thing("disk", one.id, one.instance.id if one.instance else "") for one in account.volumes.all()]
        for one in account.addresses.all():
            target = one.target.instance if isinstance(one.target, Interface) else None
            found.append(Thing("address", one.id, target.id if target else ""))
        return found + [Thing("key", one.id) for one in account.keys.all()]
