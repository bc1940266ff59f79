"""Lost machines of one job that this client took on to replace, until there are others in their places.

REPLACE says in the job's journal that it did, so nobody else will for a while: a search that found none must not be the
last one. What this client once took on it searches for by the pauses here only, however old its word is.
"""

from __future__ import annotations

import logging

from vmrun.core.clock import Clock

from .lookout import Again
from .muster import Muster

log = logging.getLogger(__name__)


class Owed:
    """Told what gets others in the place of which machines, and asked for which of them it is time to search again."""

    def __init__(self, clock: Clock) -> None:
        self._again = Again(clock)
        self._getting: list[tuple[Muster, list[str]]] = []
        self._missing: list[str] = []
        self._known: set[str] = set()

    def knows(self, vm: str) -> bool:
        """Whether it is one that this client took on at any time."""
        return vm in self._known

    def took(self, vms: list[str]) -> None:
        """These it has taken on."""
        self._known.update(vms)

    def getting(self, muster: Muster, vms: list[str]) -> None:
        """`muster` gets a machine for each of these."""
        self.took(vms)
        self._getting.append((muster, vms))

    def due(self) -> list[str]:
        """Those whose places could not be filled and are to be searched for now; told once, unless they are kept.

        They are given up once it was searched for long enough.
        """
        ended = [each for each in self._getting if not each[0].running]
        self._getting = [each for each in self._getting if each not in ended]
        short = [vm for muster, vms in ended if muster.short for vm in vms[-muster.short :]]
        self._missing += short
        if short and not self._again.missed():
            log.warning("event=not-replaced vms=%s why=searched-for-long-enough", ",".join(self._missing))
            self._missing = []
            self._again.found()
        elif ended and not short:
            self._again.found()
        if not self._again.due:
            return []
        due, self._missing = self._missing, []
        return due

    def keep(self, vms: list[str]) -> None:
        """No search was begun for these, which were due: they are so again."""
        self._missing += [vm for vm in vms if vm not in self._missing]
