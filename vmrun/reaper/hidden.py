"""VMs that their clouds do not list: of those that a journal names by the cloud's own identifier, the cloud is asked.

A region that is no longer configured is not listed, and a listing may lag; neither may hide a VM that costs money.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from vmrun.core.clouds import Instance, InstanceNotFound, InstanceState
from vmrun.core.errors import VmrunError
from vmrun.fleet.deck import Deck

from .policies import Observed

log = logging.getLogger(__name__)

#: VMs that are asked for in one pass, each in a call of its own: those first that were not for the longest time.
LOOKUPS = 200


@dataclass(frozen=True, slots=True)
class Found:
    """What came of asking."""

    #: The VMs that exist all the same.
    shown: dict[str, Instance]
    #: Those of which it is not known in this pass: nothing follows from their absence.
    unknown: frozenset[str]


class Hidden:
    """Remembers when each was asked for, so that all have their turn."""

    def __init__(self, deck: Deck) -> None:
        self._deck = deck
        #: By VM, on the monotonic clock.
        self._asked: dict[str, float] = {}

    def find(self, unseen: Sequence[Observed]) -> Found:
        """Ask for the VMs among `unseen` that their cloud has created and that are not known to be gone."""
        candidates = [each for each in unseen if each.fold is not None and each.fold.cloud_id and not each.fold.gone]
        self._asked = {each.vm: self._asked.get(each.vm, float("-inf")) for each in candidates}
        turn = sorted(candidates, key=lambda each: self._asked[each.vm])
        shown, unknown = dict[str, Instance](), {each.vm for each in turn[LOOKUPS:]}
        for each in turn[:LOOKUPS]:
            assert each.fold is not None
            self._asked[each.vm] = self._deck.desk.clock.monotonic()
            try:
                instance = self._deck.provisioner(each.on).get(each.fold.cloud_id)
            except InstanceNotFound:
                continue
            except VmrunError as error:
                log.warning("event=not-looked-up vm=%s on=%s error=%s", each.vm, each.on, error.message)
                unknown.add(each.vm)
                continue
            if instance.state is not InstanceState.gone:
                shown[each.vm] = instance
        return Found(shown, frozenset(unknown))

    def went(self, listed: Observed) -> bool:
        """Whether a VM that was listed, and is gone by its journal, ended in between; else it came back.

        In doubt it came back: what is deleted twice costs a request.
        """
        if listed.instance is None or listed.fold is None or listed.fold.gone is None:
            return False
        try:
            return self._deck.provisioner(listed.on).get(listed.instance.id).state is InstanceState.gone
        except InstanceNotFound:
            return True
        except VmrunError as error:
            log.warning("event=not-looked-up vm=%s on=%s error=%s", listed.vm, listed.on, error.message)
            return False
