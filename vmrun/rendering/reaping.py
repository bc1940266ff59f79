"""What a reaper that runs as a service says: for programs a document for each pass, for people lines of a log."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from vmrun.core.views import Verdict

from . import documents
from .text import visible

if TYPE_CHECKING:
    from vmrun.reaper.service import Pass


def document(done: Pass, *, dry_run: bool) -> dict[str, Any]:
    """One pass; verdicts that were the same in the pass before are counted, not repeated."""
    fields: dict[str, Any] = {
        "pass": done.number,
        "began": done.began,
        "seconds": round(done.seconds, 3),
        "vms": len(done.verdicts),
        "deleted": done.deleted,
        "verdicts": documents.verdicts(done.news),
        "notes": list(done.notes),
        "dry_run": dry_run,
    }
    return documents.document(**fields) if done.error is None else documents.failure(done.error, **fields)


def lines(done: Pass, *, dry_run: bool) -> Iterator[str]:
    """A line for the pass, one for each verdict that is new, one for each thing that could not be done."""
    at = datetime.fromtimestamp(done.began, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if done.error is not None:
        yield f"{at} pass={done.number} failed error={_quoted(done.error.message)} hint={_quoted(done.error.hint)}"
        return
    yield f"{at} pass={done.number} vms={len(done.verdicts)} deleted={done.deleted} seconds={done.seconds:.2f}"
    for each in done.news:
        yield f"{at} vm={visible(each.vm)} on={visible(each.on)} {_said(each, dry_run=dry_run)}"
    for note in done.notes:
        yield f"{at} note={_quoted(note)}"


def _said(verdict: Verdict, *, dry_run: bool) -> str:
    what = ("would-delete" if dry_run else "delete") if verdict.delete else "keep"
    return f"verdict={what} policy={visible(verdict.policy)} reason={_quoted(verdict.reason)}"


def _quoted(text: str) -> str:
    return documents.dumps(visible(text))
