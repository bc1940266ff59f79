"""Hostile inventories: what a listing may show beside, and in the place of, a deployment's own machines.

Every item knows whether it is truly the deployment's. Nothing that decides about deletions is used to make it.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

from tests.sim.keys import FakeSigner
from tests.unit.core.world import intent
from vmrun.core.clouds import (
    TAG_DEADLINE,
    TAG_OWNER,
    TAG_PROOF,
    TAG_VM,
    Instance,
    InstanceState,
    instance_name,
)
from vmrun.core.folds import VmFold
from vmrun.core.records import Delete, Drain, Gone
from vmrun.fleet.guards import make_proof

OURS, OTHERS = "0d0d0d0d", "0e0e0e0e"
NOW = 1_700_000_000.0
DAY = 86400.0
SIGNER = FakeSigner("client")
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


@dataclasses.dataclass(frozen=True)
class Item:
    """One instance of an inventory, the journal that belongs to the VM it says it is, and the truth."""

    instance: Instance
    fold: VmFold | None
    #: Why it is not ours; "" when it is.
    foreign: str = ""


def an_id(rng: random.Random, born: float) -> str:
    """A well-formed id made at that time."""
    value = (int(born * 1000) << 80) | rng.getrandbits(80)
    return "".join(ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5))


def own(rng: random.Random) -> Item:
    """A machine that this deployment made, in any phase of its life."""
    began = NOW - rng.choice((60.0, 1200.0, 5 * DAY))
    deadline = began + rng.choice((300.0, DAY, 30 * DAY))
    vm, on, region = an_id(rng, began), rng.choice(("ec2", "gce")), rng.choice(("east", "west"))
    name, until = instance_name(OURS, vm), str(int(deadline))
    tags = {
        TAG_OWNER: OURS,
        TAG_VM: vm,
        TAG_DEADLINE: until,
        TAG_PROOF: make_proof(SIGNER, name, on, region, until),
    }
    state = rng.choice((InstanceState.running, InstanceState.stopped, InstanceState.pending))
    zone = f"{region}-1"
    instance = Instance(f"{region}/i-{rng.getrandbits(48):x}", name, on, state, region, zone, tags=tags)
    return Item(dataclasses.replace(instance, created_at=began + 5.0), _journal(rng, instance, began, deadline))


def _journal(rng: random.Random, instance: Instance, began: float, deadline: float) -> VmFold | None:
    if rng.random() < 0.15:
        return None
    vm = instance.tags[TAG_VM]
    wanted = dataclasses.replace(
        intent(vm),
        deployment=OURS,
        name=instance.name,
        on=instance.on,
        region=instance.region,
        zone=instance.zone,
        hard_deadline=float(int(deadline)),
    )
    fold = VmFold(intent=wanted, intended_at=began, cloud_id=instance.id if rng.random() < 0.8 else "")
    ending = rng.random()
    if ending < 0.3:
        fold.delete = Delete("over", "client")
    elif ending < 0.4:
        fold.drain = Drain("no work")
    elif ending < 0.5:
        fold.delete, fold.gone = Delete("over", "client"), Gone("not found")
    return fold


def _renamed(rng: random.Random, victim: Item) -> Item:
    """Our prefix, and not our name."""
    vm = victim.instance.tags[TAG_VM]
    name = rng.choice(
        (
            f"vmrun-{OTHERS}-{vm}",
            f"vmrun-{OURS}",
            f"vmrun-{OURS}-",
            f"vmrun-{OURS}-{vm}-2",
            f"vmrun-{OURS}-{vm.upper()}",
            f"VMRUN-{OURS}-{vm}",
            f"vmrun-{OURS}-{vm[:-1]}",
            f"vmrun-{OURS}-{vm}\n",
            f"my-vmrun-{OURS}-{vm}",
            "",
        )
    )
    return _other(rng, victim, "another name", name=name)


def _other_owner(rng: random.Random, victim: Item) -> Item:
    owner = rng.choice((OTHERS, "", OURS.upper(), f"{OURS} ", OURS[:-1]))
    return _other(rng, victim, "another owner", tags=victim.instance.tags | {TAG_OWNER: owner})


def _other_vm(rng: random.Random, victim: Item) -> Item:
    other = rng.choice((an_id(rng, NOW - DAY), "../../x", "", "a" * 25, "I" * 26))
    return _other(rng, victim, "another VM", tags=victim.instance.tags | {TAG_VM: other})


def _untagged(rng: random.Random, victim: Item) -> Item:
    kept = rng.choice(((), (TAG_OWNER,), (TAG_VM,), (TAG_PROOF, TAG_DEADLINE)))
    return _other(rng, victim, "tags lack", tags={tag: victim.instance.tags[tag] for tag in kept})


def _copy(rng: random.Random, victim: Item) -> Item:
    """Name and all tags, as consoles copy them; launched later than what it is a copy of."""
    changes: dict[str, object] = {"created_at": NOW - rng.uniform(0, 10.0)}
    born = victim.instance.created_at
    if NOW - born < 2 * 3600 or rng.random() < 0.3:
        # A young one would have to be told apart by its place, or by the original that is still there.
        changes = {"created_at": born, "zone": "north-9", "region": "north"}
    return _other(rng, victim, "a copy", **changes)


def _elsewhere(rng: random.Random, victim: Item) -> Item:
    on = "ibm" if victim.instance.on != "ibm" else "ec2"
    return _other(rng, victim, "another cloud", on=on)


def _forged(rng: random.Random, victim: Item) -> Item:
    """A name and tags made up by somebody who knows how they look, and does not have the key."""
    vm = an_id(rng, NOW - DAY)
    until = str(int(NOW - rng.choice((-DAY, 10.0, DAY))))
    forger = FakeSigner("client", bytes(16))
    name = instance_name(OURS, vm)
    proof = rng.choice(
        (
            "",
            "x" * 32,
            victim.instance.tags[TAG_PROOF],
            make_proof(forger, name, victim.instance.on, victim.instance.region, until),
        )
    )
    tags = {TAG_OWNER: OURS, TAG_VM: vm, TAG_DEADLINE: until, TAG_PROOF: proof}
    made = _other(rng, victim, "forged", name=name, tags=tags, created_at=NOW - DAY)
    return dataclasses.replace(made, fold=None)


def _stretched(rng: random.Random, victim: Item) -> Item:
    """Our own tags with another deadline, on somebody's machine."""
    tags = victim.instance.tags | {TAG_DEADLINE: str(int(NOW - 10.0))}
    if tags[TAG_DEADLINE] == victim.instance.tags[TAG_DEADLINE]:
        tags[TAG_DEADLINE] = "1"
    made = _other(rng, victim, "another deadline", tags=tags)
    return made if made.fold is not None and made.fold.cloud_id else dataclasses.replace(made, fold=None)


def _other(rng: random.Random, victim: Item, why: str, **changes: object) -> Item:
    region = str(changes.get("region", victim.instance.region))
    changes["id"] = f"{region}/i-f{rng.getrandbits(48):x}"
    made = dataclasses.replace(victim.instance, **changes)  # type: ignore[arg-type]
    return Item(made, victim.fold, why)


HOSTILE: tuple[Callable[[random.Random, Item], Item], ...] = (
    _renamed,
    _other_owner,
    _other_vm,
    _untagged,
    _copy,
    _elsewhere,
    _forged,
    _stretched,
)


def inventory(rng: random.Random, pool: list[Item]) -> list[Item]:
    """One listing: machines of ours from `pool`, and what is put among them."""
    items: list[Item] = []
    for _ in range(rng.randrange(4)):
        mine = rng.choice(pool)
        if rng.random() < 0.6:
            items.append(mine)
        items += [rng.choice(HOSTILE)(rng, mine) for _ in range(rng.randrange(3))]
    return items
