"""What was unavailable minutes ago, for every search of this computer: a small file that may be deleted at any time."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from vmrun.core.clouds import Fault

from .search import RuledOut

FILE_NAME = "unavailable.json"
#: Entries, and bytes, of the file; more is damage.
ENTRIES_MAX, BYTES_MAX = 200, 256 * 1024
#: Seconds; nothing is remembered for longer, whatever the file says.
AGE_MAX = 600.0
_SCHEMA = 1


class Memory:
    """The file, read and written anew each time: several processes share it, and a lost note costs one call."""

    def __init__(self, cache_dir: Path) -> None:
        self._path = cache_dir / FILE_NAME

    def recall(self, now: float) -> list[RuledOut]:
        """What still counts at `now`, in seconds since the epoch; nothing if the file is damaged."""
        try:
            with self._path.open("rb") as file:
                data = file.read(BYTES_MAX + 1)
            found = json.loads(data) if len(data) <= BYTES_MAX else None
        except (OSError, ValueError, RecursionError):
            return []
        if not isinstance(found, dict) or found.get("schema") != _SCHEMA or not isinstance(found.get("entries"), list):
            return []
        read = (_read(entry) for entry in found["entries"][:ENTRIES_MAX])
        return [entry for entry in read if entry is not None and _counts(entry, now)]

    def note(self, entries: Iterable[RuledOut], now: float) -> None:
        """Remember these too. That it cannot be written is no error: the next search finds out by itself."""
        fresh = list(entries)
        if not fresh:
            return
        kept = [old for old in self.recall(now) if not any(_alike(old, new) for new in fresh)]
        newest = sorted([*kept, *fresh], key=lambda entry: entry.at)[-ENTRIES_MAX:]
        rows = [{**asdict(entry), "fault": entry.fault.value} for entry in newest]
        with contextlib.suppress(OSError):
            self._write(json.dumps({"schema": _SCHEMA, "entries": rows}))

    def _write(self, text: str) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f"{FILE_NAME}.", dir=self._path.parent)
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(name, self._path)
        except OSError:
            os.unlink(name)
            raise


def _counts(entry: RuledOut, now: float) -> bool:
    # A clock that was set back must not make an entry last.
    return entry.at <= now < min(entry.until, entry.at + AGE_MAX)


def _alike(one: RuledOut, other: RuledOut) -> bool:
    def place(entry: RuledOut) -> tuple[object, ...]:
        return entry.on, entry.region, entry.zone, entry.instance_type, entry.bucket, entry.spot

    return place(one) == place(other)


def _read(entry: object) -> RuledOut | None:
    if not isinstance(entry, dict):
        return None
    texts = [entry.get(key) for key in ("on", "region", "zone", "instance_type", "bucket")]
    spot, at, until = entry.get("spot"), entry.get("at"), entry.get("until")
    if not all(isinstance(text, str) for text in texts) or not texts[0] or not isinstance(spot, bool | None):
        return None
    if not isinstance(at, int | float) or not isinstance(until, int | float):
        return None
    try:
        fault = Fault(entry.get("fault"))
    except ValueError:
        return None
    on, region, zone, instance_type, bucket = (str(text) for text in texts)
    return RuledOut(on, region, zone, instance_type, bucket, spot, fault, float(at), float(until))
