"""What hosts are, as they said themselves: kept for a day, so that hosts which are too small are not asked again."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from vmrun.core.clouds import Need, Offer
from vmrun.machine.commands import Facts

from .hosts import HostName

#: Seconds for which a host is taken to be what it was.
AGE_MAX = 86400.0
#: Bytes of the file; more is damage.
_BYTES_MAX = 1024 * 1024
_REGION = "own"


class FactsCache:
    """A file that may be deleted at any time; a note that is lost costs one look."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "facts.json"

    def recall(self, host: HostName, now: float) -> Facts | None:
        """What the host was when it was last asked; None if that is too long ago, or was never."""
        found = self._read().get(host.key)
        try:
            if not isinstance(found, dict) or not found["at"] <= now < found["at"] + AGE_MAX:
                return None
            return Facts(**found["facts"])
        except (KeyError, TypeError):
            return None

    def note(self, found: Mapping[HostName, Facts], now: float) -> None:
        """Remember what these are."""
        rows = {**self._read(), **{host.key: {"at": now, "facts": asdict(facts)} for host, facts in found.items()}}
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix="facts.", dir=self._path.parent)
            with open(descriptor, "w", encoding="utf-8") as file:
                json.dump(rows, file)
            os.replace(name, self._path)

    def _read(self) -> dict[str, object]:
        try:
            with self._path.open("rb") as file:
                data = file.read(_BYTES_MAX + 1)
            found = json.loads(data) if len(data) <= _BYTES_MAX else {}
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


def offer_of(host: HostName, facts: Facts) -> Offer:
    """The host as an offer: a zone of its own, with one machine in it."""
    return Offer(
        on="ssh",
        instance_type=host.place,
        region=_REGION,
        zone=host.place,
        arch=facts.arch,
        vcpus=facts.cpus,
        cores=facts.cpus,
        memory=facts.memory,
        usd_per_hour=0.0,
    )


def is_named(host: HostName, need: Need) -> bool:
    """Whether the host is among those that are asked for by name."""
    names = ("", host.place)
    return need.zone in names and need.instance_type in names and need.region in ("", _REGION)


def fits(facts: Facts, need: Need) -> bool:
    """Whether the host is as large as is asked for."""
    large = facts.cpus >= need.cpus and facts.memory >= need.memory and facts.disk_free >= need.disk
    return large and need.arch in ("", facts.arch)
