"""What was paid for what: the lives of VMs cut into pieces, each at one price, for one job or for none, and added up.

Pure. A VM's time belongs to the job that it has: booting to the first one, then from when a job is given to it until
that job has ended. What is left is idle: warm, or on its way out. Days are those of UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from vmrun.core.folds import VmFold
from vmrun.core.money import billed, given_later

DAY = 86400.0


class By(Enum):
    """What the rows of a report stand for."""

    job = "job"
    #: Of UTC.
    day = "day"
    cloud = "cloud"


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of one VM's life. Prices are dollars an hour; None where they are not known."""

    vm: str
    on: str
    #: "" for idle time.
    job: str
    #: Seconds since the epoch.
    begin: float
    end: float
    spot: bool
    machine: float | None
    disk: float | None
    address: float | None


def pieces(fold: VmFold, now: float, ended: Callable[[str], float | None]) -> Iterator[Piece]:
    """The life of a VM, in order, without gaps; `ended` tells when a job ended, None while it has not."""
    intent = fold.intent
    begin, end = billed(fold, now)
    if intent is None or begin >= end:
        return
    given = [min(max(at, begin), end) for at in fold.given_at]
    waited = given[0] if given and given_later(fold) else begin
    starts = [waited, *given[1:], end]
    busy: list[tuple[str, float, float]] = [("", begin, waited)]
    for at, job in enumerate(fold.jobs):
        final = ended(job)
        stop = starts[at + 1] if final is None else min(starts[at + 1], max(final, starts[at]))
        busy += [(job, starts[at], stop), ("", stop, starts[at + 1])]
    for job, first, last in busy if given else [("", begin, end)]:
        if last > first:
            yield Piece(
                vm=intent.vm,
                on=intent.on,
                job=job,
                begin=first,
                end=last,
                spot=intent.spot,
                machine=intent.usd_per_hour,
                disk=intent.disk_usd_per_hour,
                address=intent.address_usd_per_hour,
            )


@dataclass(slots=True)
class Row:
    """What is added up under one heading. Money in dollars."""

    hours: float = 0.0
    on_demand: float = 0.0
    spot: float = 0.0
    disk: float = 0.0
    address: float = 0.0
    #: Part of all these that was paid for idle time.
    idle: float = 0.0
    #: Hours of machines, of disks and of addresses whose price is not known; they are in no sum.
    unpriced: float = 0.0
    unpriced_disk: float = 0.0
    unpriced_address: float = 0.0

    @property
    def total(self) -> float:
        """Dollars, as far as prices are known."""
        return self.on_demand + self.spot + self.disk + self.address

    def add(self, piece: Piece, hours: float) -> None:
        """Count `hours` of a piece."""
        before = self.total
        self.hours += hours
        if piece.machine is None:
            self.unpriced += hours
        elif piece.spot:
            self.spot += piece.machine * hours
        else:
            self.on_demand += piece.machine * hours
        self.disk += (piece.disk or 0.0) * hours
        self.address += (piece.address or 0.0) * hours
        self.unpriced_disk += hours if piece.disk is None else 0.0
        self.unpriced_address += hours if piece.address is None else 0.0
        self.idle += self.total - before if not piece.job else 0.0


@dataclass(slots=True)
class Costs:
    """A report over the time from `since` to `until`, seconds since the epoch."""

    by: By
    since: float
    until: float
    #: By id of a job ("" for idle time), number of a day since the epoch, or name of a cloud.
    rows: dict[str, Row] = field(default_factory=dict)
    total: Row = field(default_factory=Row)
    vms: int = 0
    #: Names of the jobs in `rows`.
    names: dict[str, str] = field(default_factory=dict)
    #: VMs whose journal cannot be trusted: nothing of them is counted.
    unreadable: int = 0

    def add(self, life: Iterator[Piece]) -> None:
        """Count one VM, as far as it lived in the time of the report."""
        counted = False
        for piece in life:
            for key, hours in self._split(piece):
                counted = True
                self.rows.setdefault(key, Row()).add(piece, hours)
                self.total.add(piece, hours)
        self.vms += counted

    def _split(self, piece: Piece) -> Iterator[tuple[str, float]]:
        begin, end = max(piece.begin, self.since), min(piece.end, self.until)
        if begin >= end:
            return
        if self.by is not By.day:
            yield piece.job if self.by is By.job else piece.on, (end - begin) / 3600
            return
        day = int(begin // DAY)
        while day * DAY < end:
            yield str(day), (min(end, (day + 1) * DAY) - max(begin, day * DAY)) / 3600
            day += 1
