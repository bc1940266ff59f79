"""Text for people: escapes, widths, times and money in a few characters."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vmrun.core.units import format_duration

#: Characters that reorder or hide their neighbours: a name must not be able to show as another.
_MISLEADING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
_REFUSED = ("Cc", "Cs", "Zl", "Zp", "Co", "Cn")
_COLORS = {"red": "31", "green": "32", "yellow": "33", "blue": "34", "bold": "1", "dim": "2"}


@dataclass(frozen=True, slots=True)
class Style:
    """What the stream at hand can show."""

    color: bool = False
    unicode: bool = True
    #: Columns of the terminal; 0: not a terminal, lines may be of any length.
    width: int = 0

    def paint(self, text: str, color: str) -> str:
        """`text` in a colour, if there are colours."""
        return f"\x1b[{_COLORS[color]}m{text}\x1b[0m" if self.color and color and text else text

    @property
    def ellipsis(self) -> str:
        """What stands for text that was cut off."""
        return "…" if self.unicode else "..."

    @property
    def dot(self) -> str:
        """What stands between the parts of a line."""
        return " · " if self.unicode else ", "


PLAIN = Style()
#: (seconds from which on it is used, seconds that it has, name)
_AXIS_UNITS = (
    (6 * 3600.0, 3600.0, "hours"),
    (600.0, 60.0, "minutes"),
    (1.0, 1.0, "seconds"),
    (1e-3, 1e-3, "milliseconds"),
    (0.0, 1e-6, "microseconds"),
)


def visible(text: str, *, keep: str = "") -> str:
    r"""`text` with all that is no visible character escaped (but for those in `keep`), so that it can only be read.

    Terminal sequences, line breaks, reordering marks and halves of surrogate pairs become `\x1b`, `\n`, `\u202e`, …
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character
        if character in keep or not (character in _MISLEADING or unicodedata.category(character) in _REFUSED)
        else repr(character)[1:-1]
        if not character.isprintable()
        else f"\\u{ord(character):04x}"
        for character in text
    )


def paragraphs(text: str) -> str:
    """As `visible`, but line breaks and tabs stay: for messages and tracebacks."""
    return visible(text.replace("\r\n", "\n"), keep="\n\t")


def width_of(text: str) -> int:
    """Terminal columns that `text` takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def shorten(text: str, width: int, style: Style = PLAIN) -> str:
    """`text`, cut to at most `width` columns with a sign that it was."""
    if width_of(text) <= width:
        return text
    from rich.cells import set_cell_size

    room = max(width - len(style.ellipsis), 0)
    return (set_cell_size(text, room).rstrip() + style.ellipsis)[: max(width, 0)]


def short_duration(seconds: float) -> str:
    """One unit: `40s`, `12m`, `3h`, `5d`; for what is only roughly known."""
    if seconds < 60:
        return f"{max(round(seconds), 0)}s"
    if seconds < 5400:
        return f"{round(seconds / 60)}m"
    return f"{round(seconds / 3600)}h" if seconds < 172_800 else f"{round(seconds / 86400)}d"


def seconds_text(seconds: float, style: Style = PLAIN) -> str:
    """Three digits and a unit: `12.3 µs`, `4.56 ms`, `7.89 s`, and from a minute on `2m 05s`."""
    if seconds >= 59.95:
        return format_duration(seconds)
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("µs" if style.unicode else "us", 1e6)):
        # What would be rounded to one of the larger unit is written so.
        if seconds * scale >= 0.9995:
            return f"{seconds * scale:#.3g}".rstrip(".") + f" {unit}"
    return "0 s" if seconds < 5e-10 else f"{seconds * 1e9:.0f} ns"


def axis_unit(most: float) -> tuple[float, str]:
    """Seconds in the unit that times up to `most` seconds are best told in, and its name."""
    return next((scale, name) for least, scale, name in _AXIS_UNITS if most >= least)


def ago(then: float, now: float) -> str:
    """`12m ago`; nothing for a time that is not known."""
    return f"{short_duration(now - then)} ago" if then else ""


def ends(at: float, because: str, now: float) -> str:
    """`in 12m because idle`: when a VM dies, and why then."""
    if not at:
        return ""
    when = f"in {short_duration(at - now)}" if at > now else "overdue"
    return f"{when} because {because}" if because else when


def money(dollars: float | None, *, digits: int = 2) -> str:
    """`$1.25`; `?` for a price that is not known."""
    if dollars is None:
        return "?"
    if 0 < dollars < 10**-digits:
        return f"<${10**-digits:.{digits}f}"
    return f"${dollars:.{digits}f}"


def count(number: int, noun: str) -> str:
    """`1 task`, `2 tasks`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def safe_repr(value: Any, *, limit: int = 0) -> str:
    """`repr(value)`, whatever the value is; cut after `limit` characters (0: never)."""
    return _cut(_called(repr, value), limit)


def _called(show: Callable[[Any], str], value: Any) -> str:
    try:
        return show(value)
    except Exception as error:  # noqa: BLE001 -- the user's own code, of which anything must be expected
        return f"<{type(value).__name__}, whose repr raises {type(error).__name__}>"


def _cut(text: str, limit: int) -> str:
    return text if not limit or len(text) <= limit else f"{text[:limit]}... ({len(text):,} characters)"
