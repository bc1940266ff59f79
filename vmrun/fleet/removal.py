"""The one place where a cloud is told to delete an instance."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace

from vmrun.core.clouds import Instance, InstanceNotFound, InstanceState
from vmrun.core.errors import StoreError, VmrunError
from vmrun.core.folds import VmFold

from .deck import Deck
from .guards import Case, objection, proves

log = logging.getLogger(__name__)


class Guarded(VmrunError):
    """A deletion that a guard forbids: it is not certain that the instance is this deployment's, or to go."""

    code = "guarded"


def recorded(deck: Deck) -> str | None:
    """The deployment that the store says it is; None when it gives no answer."""
    try:
        return deck.recorded()
    except StoreError as error:
        log.warning("event=deployment-not-read error=%s", error.message)
        return None


def case_of(deck: Deck, vm: str, on: str, instance: Instance, fold: VmFold | None) -> Case:
    """The facts about one instance as a listing shows it, the store's owner not asked yet."""
    signer = deck.desk.signer
    # Where the journal names the instance, nobody asks for the proof, which takes a signature to make.
    named = fold is not None and fold.cloud_id == instance.id
    return Case(
        deployment=deck.deployment,
        recorded=deck.deployment,
        vm=vm,
        on=on,
        id=instance.id,
        instance=instance,
        fold=fold,
        now=deck.desk.clock.now(),
        proven=not named and signer is not None and proves(signer, instance),
        tagged=deck.provisioner(on).capabilities.atomic_tags,
    )


def find_case(deck: Deck, vm: str, on: str, fold: VmFold, listed: Iterable[Instance] | None = None) -> Case:
    """The facts about a VM that its journal knows, its cloud and the store asked. Raises CloudError.

    A VM whose creation was never answered is looked for by its name in the listing (`listed`, or a new one).
    """
    assert fold.intent is not None
    provisioner, name = deck.provisioner(on), fold.intent.name
    seen: Instance | None = None
    bearers = 1
    if fold.cloud_id:
        try:
            seen = provisioner.get(fold.cloud_id)
        except InstanceNotFound:
            seen = None
    else:
        known = provisioner.instances(deck.deployment) if listed is None else listed
        found = [each for each in known if each.name == name]
        alive = [each for each in found if each.state is not InstanceState.gone]
        seen, bearers = next(iter(alive or found), None), max(len(alive), 1)
    asked = recorded(deck)
    if seen is not None:
        return replace(case_of(deck, vm, on, seen, fold), recorded=asked, bearers=bearers)
    return Case(deck.deployment, asked, vm, on, fold.cloud_id or name, None, fold, deck.desk.clock.now())


def remove(deck: Deck, case: Case, why: str) -> None:
    """Have the cloud delete one instance. Raises Guarded, with nothing done, if a guard objects, else CloudError."""
    if reason := objection(case):
        log.error("event=delete-refused vm=%s id=%s on=%s reason=%s", case.vm, case.id, case.on, reason)
        raise Guarded(f"{case.id} was not deleted: {reason}", hint="look at it in the cloud's console")
    log.info("event=delete vm=%s id=%s on=%s why=%s", case.vm, case.id, case.on, why)
    deck.provisioner(case.on).delete(case.id)
