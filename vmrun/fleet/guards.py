"""What must hold before anything is deleted at a cloud. Pure: facts in, the first objection out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from vmrun.core.clouds import TAG_DEADLINE, TAG_OWNER, TAG_PROOF, TAG_VM, Instance, instance_name
from vmrun.core.folds import VmFold
from vmrun.core.ids import born, is_id
from vmrun.core.signing import Signer

#: Seconds within which a VM is created after its id was made; clocks may differ by most of it.
BIRTH = 3600.0
#: Characters of a proof: 128 bits, and short enough for every cloud's tags.
_PROOF = 32


def make_proof(signer: Signer, name: str, on: str, region: str, deadline: str) -> str:
    """The tag that only the holder of the deployment's key can write: whose a machine is, where, and until when.

    Signatures are deterministic, so that it can be made again to be compared.
    """
    fields = ("vmrun-proof", name, on, region, deadline)
    message = "\n".join(f"{len(field)}:{field}" for field in fields).encode()
    return hashlib.sha256(signer.sign(message)).hexdigest()[:_PROOF]


def proves(signer: Signer, instance: Instance) -> bool:
    """Whether the proof among the instance's tags is the one that belongs there."""
    found, deadline = instance.tags.get(TAG_PROOF, ""), instance.tags.get(TAG_DEADLINE, "")
    return bool(found) and found == make_proof(signer, instance.name, instance.on, instance.region, deadline)


def tagged_deadline(instance: Instance) -> float:
    """Seconds since the epoch after which the instance must not exist, as its tag says; 0 if it does not."""
    text = instance.tags.get(TAG_DEADLINE, "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 12 else 0.0


@dataclass(frozen=True, slots=True)
class Case:
    """All that bears on whether one instance may be deleted."""

    #: The deployment whose keys this process holds.
    deployment: str
    #: The deployment that the store says it is; None when it gave no answer.
    recorded: str | None
    vm: str
    on: str
    #: The identifier that the cloud would be given.
    id: str
    #: What the cloud shows under it; None when it shows nothing.
    instance: Instance | None
    #: What the VM's journal says; None when there is none, or none that can be trusted.
    fold: VmFold | None
    #: Seconds since the epoch.
    now: float
    #: Whether the proof among its tags holds.
    proven: bool = False
    #: Whether the cloud keeps the tags of a create call, so that a machine without a proof is none of ours.
    tagged: bool = True
    #: Instances that exist under the VM's name.
    bearers: int = 1
    #: Whether all instances of the deployment were listed.
    complete: bool = True
    #: Deletions that this pass may still make.
    left: int = 1


def objection(case: Case) -> str:
    """Why the instance must not be deleted, whatever a policy says of it; "" when nothing speaks against it."""
    return stranger(case) or _unwarranted(case)


def stranger(case: Case) -> str:
    """Why it is not certain that the instance is this deployment's VM; "" when it is."""
    if not case.deployment or case.recorded not in (case.deployment, None):
        return "the store is not this deployment's own"
    if not is_id(case.vm) or not case.id:
        return "it is no VM of vmrun"
    return _misnamed(case) or _misplaced(case) or _unproven(case)


def _misnamed(case: Case) -> str:
    """Names and tags: none may contradict, and where the journal does not name the instance, none may lack."""
    name, seen = instance_name(case.deployment, case.vm), case.instance
    if case.fold is not None and case.fold.intent is not None:
        intent = case.fold.intent
        if (intent.vm, intent.deployment, intent.name) != (case.vm, case.deployment, name):
            return "its journal is about another VM"
    if seen is None:
        return ""
    if (seen.id, seen.on) != (case.id, case.on):
        return "its cloud shows another instance"
    if seen.name != name:
        return "it has another name"
    needed = not _created(case)
    for tag, value in ((TAG_OWNER, case.deployment), (TAG_VM, case.vm)):
        if seen.tags.get(tag, "" if needed else value) != value:
            return f"its tag {tag} is another's"
    return ""


def _misplaced(case: Case) -> str:
    """Place and identity, as the journal has them: a copy, tags and all, differs from what was created."""
    fold = case.fold
    if fold is None or fold.intent is None:
        return ""
    if fold.intent.on != case.on:
        return f"the VM was made on {fold.intent.on}"
    if fold.cloud_id:
        return "" if fold.cloud_id == case.id else f"it is a copy: the VM itself is {fold.cloud_id}"
    seen = case.instance
    if seen is not None and fold.intent.zone and seen.zone and seen.zone != fold.intent.zone:
        return f"the VM was to be made in {fold.intent.zone}"
    return ""


def _unproven(case: Case) -> str:
    """What stands in for a journal that names the instance: a proof, and that there is only one of it."""
    if _created(case):
        return ""
    if case.instance is None:
        # Only the name that the intent fixed, which nobody else's instance has.
        intended = case.fold is not None and case.fold.intent is not None and case.fold.intent.name == case.id
        return "" if intended else "nothing says that it is this VM"
    if case.instance.created_at > born(case.vm) + BIRTH:
        return "it was made long after the VM, so it is a copy"
    if case.bearers != 1:
        return f"{case.bearers} instances bear its name, and none is known to be the VM"
    forged = not case.tagged and TAG_PROOF in case.instance.tags
    if not case.proven and (case.tagged or forged):
        return "its tags do not prove that this deployment made it"
    return ""


def _unwarranted(case: Case) -> str:
    """The decision: in the journal; without one that can be read, only the deadline counts."""
    if not case.complete:
        return "the listing was not complete"
    if case.left < 1:
        return "this pass deleted its share"
    fold = case.fold
    if fold is not None:
        # Where the store says DELETE, it also answers.
        return "" if case.recorded is not None and (fold.delete or fold.gone) else "its journal does not condemn it"
    deadline = tagged_deadline(case.instance) if case.instance is not None else 0.0
    return "" if deadline and case.now > deadline else "nothing but its deadline may end it, and that has not come"


def _created(case: Case) -> bool:
    """Whether the journal names this very instance as the one that the cloud created."""
    return case.fold is not None and case.fold.intent is not None and case.fold.cloud_id == case.id != ""
