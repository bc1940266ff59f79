"""What an error tells beside its message: the offers that were tried, and what a machine wrote to its console."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .tables import Column, table
from .text import Style, paragraphs, visible

_TRIED = (
    Column("ON"),
    Column("TYPE", flexible=True),
    Column("WHERE", flexible=True),
    Column("MARKET"),
    Column("WHY NOT"),
    Column("THE CLOUD SAYS", flexible=True),
)


def reasons(data: Mapping[str, Any], style: Style) -> list[str]:
    """Lines that stand between an error's message and its hint; none for most errors."""
    lines: list[str] = []
    if tried := data.get("tried"):
        lines += table(_TRIED, [_tried(row) for row in tried], style)
    if console := data.get("console"):
        lines += ["last lines of the machine's console:", *(f"  {paragraphs(line)}" for line in console)]
    return lines


def _tried(row: Mapping[str, Any]) -> tuple[str, ...]:
    quota = f" {row['quota']}" if row.get("quota") else ""
    code = f"{row['code']}: " if row.get("code") and row["code"] not in row["message"] else ""
    market = "" if row.get("spot") is None else "spot" if row["spot"] else "on-demand"
    return (
        visible(row["on"]),
        visible(row["instance_type"]),
        visible(row["zone"] or row["region"]),
        market,
        visible(f"{row['fault']}{quota}"),
        visible(f"{code}{row['message']}"),
    )
