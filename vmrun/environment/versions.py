"""Which Python a job runs under: version specifiers as far as `requires-python` needs them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vmrun.core.errors import UsageError

#: Minors that vmrun itself runs under, preferred in this order when the client's own is ruled out.
KNOWN_MINORS = ("3.13", "3.12", "3.11", "3.14")
#: Patch releases that are tried; no minor has had more.
_PATCHES = range(60)
_CLAUSE = re.compile(r"(~=|==|!=|<=|>=|<|>)\s*v?(\d+(?:\.\d+)*)(\.\*)?(?:(?:a|b|rc|\.?dev|\.?post)\d+)?")


def choose_python(requires: str, client: str, wanted: str = "", *, known: Sequence[str] = KNOWN_MINORS) -> str:
    """The `major.minor` that a job runs under: `wanted` if given, else the client's own, else the first that fits.

    The client's own comes first because results that hold code can only be read by the minor that wrote them.
    Raises UsageError when `requires` cannot be read, or rules out what is wanted or everything known.
    """
    if wanted:
        if not admits(requires, wanted):
            raise UsageError(
                f"the script requires Python {requires}, and {wanted} was asked for",
                hint="change requires-python in the script, or --python",
            )
        return wanted
    for minor in (client, *known):
        if admits(requires, minor):
            return minor
    raise UsageError(
        f"the script requires Python {requires}; vmrun knows {', '.join(sorted(known))}",
        hint="change requires-python in the script's `# /// script` block",
    )


def admits(requires: str, minor: str) -> bool:
    """Whether some release of Python `minor` meets the specifier `requires` ("" admits all). Raises UsageError."""
    major, _, second = minor.partition(".")
    clauses = [_read(clause.strip()) for clause in requires.split(",") if clause.strip()]
    releases = ((int(major), int(second), patch) for patch in _PATCHES)
    return any(all(_meets(release, *clause) for clause in clauses) for release in releases)


def _read(clause: str) -> tuple[str, tuple[int, ...]]:
    """Operator and version; the operator of `==3.12.*` is `==*`."""
    match = _CLAUSE.fullmatch(clause)
    if match is None or (match[3] and match[1] not in ("==", "!=")):
        raise UsageError(
            f"requires-python: {clause[:80]!r} is not a version specifier", hint='such as ">=3.11" or "==3.12.*"'
        )
    return match[1] + ("*" if match[3] else ""), tuple(int(part) for part in match[2].split("."))


def _meets(release: tuple[int, ...], operator: str, version: tuple[int, ...]) -> bool:
    starts_so = release[: len(version)] == version
    if operator == "~=":
        return release >= version and release[: len(version) - 1] == version[:-1]
    width = max(len(release), len(version))
    left, right = ((*side, *[0] * (width - len(side))) for side in (release, version))
    return {
        "==*": starts_so,
        "!=*": not starts_so,
        "==": left == right,
        "!=": left != right,
        "<=": left <= right,
        ">=": left >= right,
        "<": left < right,
        ">": left > right,
    }[operator]
