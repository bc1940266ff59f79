"""What `vmrun doctor` found, line by line as it comes."""

from __future__ import annotations

from typing import Any

from vmrun.core.estates import Finding, Grade

from .text import Style, visible

_MARKS = {Grade.good: "✓", Grade.warning: "!", Grade.bad: "✗", Grade.unclear: "?"}
_WORDS = {Grade.good: "ok", Grade.warning: "warning", Grade.bad: "bad", Grade.unclear: "unclear"}
_COLORS = {Grade.good: "green", Grade.warning: "yellow", Grade.bad: "red", Grade.unclear: "yellow"}


def finding_lines(finding: Finding, style: Style) -> list[str]:
    """One finding, and its next step below it."""
    # Signs are for eyes on a terminal; a file or a pipe gets words.
    drawn = style.unicode and style.width > 0
    mark = _MARKS[finding.grade] if drawn else f"{_WORDS[finding.grade]:<7}"
    lines = [f"  {style.paint(mark, _COLORS[finding.grade])} {visible(finding.what)}: {visible(finding.message)}"]
    return lines + [f"      {visible(line)}" for line in finding.hint.splitlines()]


def finding_document(area: str, finding: Finding) -> dict[str, Any]:
    """One finding as a JSON value."""
    return {
        "area": area,
        "what": finding.what,
        "grade": finding.grade.value,
        "message": finding.message,
        "hint": finding.hint,
    }
