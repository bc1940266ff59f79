"""When each task of a job ran, where, and how it ended, in columns: some 17 bytes a task."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Any

from vmrun.core.ledger import Desk
from vmrun.core.task_views import JobStats
from vmrun.core.views import JobView

from .measures import facts_of
from .stats import Tally
from .stretches import StretchReader

#: A worker: its VM, and its number there.
Row = tuple[str, int]


@dataclass(slots=True)
class Timeline:
    """The tasks of a job that have ended and had begun, in the order in which their outcomes were committed."""

    stats: JobStats
    #: Workers in order; a task's row is a place in here.
    rows: list[Row]
    row: array[int]
    #: Seconds since the epoch, on the clock of the worker's VM.
    started: array[float]
    seconds: array[float]
    #: Codes of `Status`.
    status: bytearray = field(repr=False)

    def __len__(self) -> int:
        return len(self.started)


def read_timeline(desk: Desk, view: JobView) -> Timeline:
    """The timeline of a job as it is in the store now."""
    reader, tally = StretchReader(desk, view.id), Tally()
    places: dict[Row, int] = {}
    row, started, seconds, status = array("I"), array("d"), array("f"), bytearray()
    for stretch in reader.stretches():
        tally.see(stretch)
        block, facts = stretch.block, facts_of(stretch.block)
        if facts.worker is None:
            continue
        place = places.setdefault((stretch.vm, facts.worker), len(places))
        known = [at for at in range(block.count) if block.started[at]] if 0.0 in block.started else None
        row.extend([place] * (block.count if known is None else len(known)))
        started.extend(_picked(block.started, known))
        seconds.extend(_picked(block.seconds, known))
        status.extend(_picked(block.status, known))
    rows = sorted(places)
    order = array("I", [0]) * len(rows)
    for place, worker in enumerate(rows):
        order[places[worker]] = place
    return Timeline(
        tally.stats(view, reader), rows, array("I", [order[place] for place in row]), started, seconds, status
    )


def _picked(column: array[Any] | bytes | bytearray, known: list[int] | None) -> Any:
    return column if known is None else [column[at] for at in known]
