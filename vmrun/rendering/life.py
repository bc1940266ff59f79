"""The life of a VM, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from vmrun.core.codec import to_data
from vmrun.core.records import (
    Alive,
    Assign,
    Created,
    Delete,
    Drain,
    Entry,
    Failed,
    Gone,
    Hold,
    Intent,
    Ready,
    Relieve,
    Stay,
    Suspect,
)
from vmrun.core.units import format_duration

from . import documents
from .text import Style, ago, ends, money, visible

if TYPE_CHECKING:
    from vmrun.watch.life import Life


def document(life: Life) -> dict[str, Any]:
    """All of it."""
    return documents.document(
        vm={**documents.vm(life.view), "cloud_id": life.cloud_id or None, "name": life.name or None},
        life=[_entry(entry) for entry in life.entries],
        heartbeat=None if life.beat is None else {"at": life.beat_at, **to_data(life.beat)},
        deadlines=[{"what": each.what, "at": each.at} for each in life.deadlines],
        broken=life.broken or None,
    )


def _entry(entry: Entry) -> dict[str, Any]:
    body = entry.body
    return {
        "n": entry.n,
        "at": entry.at,
        "by": _who(entry),
        "type": body.TYPE if body is not None else None,
        "text": _told(entry),
        "data": to_data(body) if body is not None else None,
    }


def lines(life: Life, now: float, style: Style) -> Iterator[str]:
    """What happened, line by line; then how it is, and what will end it."""
    view = life.view
    yield f"VM {visible(view.id)}: {style.paint(visible(view.state), 'bold')}"
    if life.name:
        where = " ".join(part for part in (view.on, view.instance_type, view.region) if part)
        yield visible(f"{life.name}, {where}" + (f", {life.cloud_id}" if life.cloud_id else ""))
    yield ""
    for entry in life.entries:
        at = datetime.fromtimestamp(entry.at, UTC).strftime("%Y-%m-%d %H:%M:%S")
        word = entry.body.TYPE if entry.body is not None else "?"
        yield f"{at}  {word:<8}  {_who(entry):<6}  {visible(_told(entry))}"
    if life.broken:
        yield style.paint(f"what follows cannot be trusted: {visible(life.broken)}", "red")
    yield ""
    yield from _now(life, now)


def _now(life: Life, now: float) -> Iterator[str]:
    view, beat = life.view, life.beat
    if beat is not None:
        doing = f", working on {beat.busy}" if beat.busy else f", idle for {format_duration(beat.idle)}"
        yield visible(f"last heartbeat: number {beat.counter}, {ago(life.beat_at, now)}{doing}")
    for each in life.deadlines:
        yield visible(f"ends {ends(each.at, each.what, now)}")
    if view.usd:
        yield f"cost: {money(view.usd)}"


def _who(entry: Entry) -> str:
    """Who wrote it: a client, a reaper, or the VM itself."""
    body = entry.body
    if isinstance(body, Delete | Suspect):
        return body.by
    return "VM" if entry.writer.startswith("vm:") else entry.writer


def _told(entry: Entry) -> str:
    """One entry, in a sentence."""
    match entry.body:
        case Intent() as intent:
            return _intended(intent, entry.at)
        case Created(cloud_id):
            return f"its cloud made it: {cloud_id}"
        case Failed(fault, message):
            return f"its cloud refused ({fault}): {message}"
        case Ready() as ready:
            where = f" at {ready.host}" if ready.host else ""
            return f"made ready{where}, {ready.workers} workers"
        case Assign(job, keep_warm):
            return f"given job {job}" + (
                f", to stay warm for {format_duration(keep_warm)} after it" if keep_warm else ""
            )
        case Stay(until):
            return f"to wait for jobs for {format_duration(until - entry.at)}" if until else "to wait for no more jobs"
        case _:
            return _ended(entry)


def _ended(entry: Entry) -> str:
    match entry.body:
        case Suspect():
            return "no sign of life: taken for dead unless it answers"
        case Alive():
            return "it answered: it is alive"
        case Hold() as hold:
            return f"stays for debugging for {format_duration(max(hold.until - entry.at, 0.0))}: {hold.why}"
        case Drain(reason):
            return f"takes no further job and ends: {reason}"
        case Delete(why):
            return f"to be deleted: {why}"
        case Relieve():
            return "a client gets its job another machine"
        case Gone(evidence):
            return f"it is no more: {evidence}"
        case _:
            return "an entry that this version of vmrun does not know"


def _intended(intent: Intent, at: float) -> str:
    place = intent.zone or intent.region
    price = f", {money(intent.usd_per_hour)}/h" if intent.usd_per_hour else ""
    lifetime = format_duration(max(intent.hard_deadline - at, 0.0))
    whom = f"pool {intent.pool}" if intent.pool else f"job {intent.job}"
    return (
        f"to be made: {intent.instance_type} on {intent.on} in {place}{' spot' if intent.spot else ''}{price}"
        f" for {whom}; ready within {format_duration(intent.boot_grace)}, gone within {lifetime}"
    )
