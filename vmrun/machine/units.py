"""The unit files and the dead-man script: text files of this package with a few `@NAME@` blanks."""

from __future__ import annotations

import math
import re
from importlib.resources import files

from vmrun.core.ids import check_id

from . import layout

_BLANK = re.compile(r"@([A-Z_]+)@")


def _fill(name: str, **values: object) -> str:
    """The text of a packaged file with its blanks filled; a blank without a value is a KeyError."""
    text = files(__package__).joinpath("files", name).read_text(encoding="utf-8")
    return _BLANK.sub(lambda blank: str(values[blank[1]]), text)


def whole_seconds(seconds: float) -> int:
    """Seconds for a file or a unit: whole, rounded up, at least one."""
    return max(1, math.ceil(seconds))


def deadman_script(*, borrowed_by: str = "") -> str:
    """The dead-man script, for any POSIX shell. A machine borrowed by a VM is cleaned, any other powered off."""
    end = _fill("end-borrowed", VM=check_id(borrowed_by, "VM")) if borrowed_by else _fill("end-rented")
    return _fill("vmrun-deadman", END=end.rstrip("\n"))


def deadman_service(*, flush_grace: float, borrowed: bool = False) -> str:
    """The unit that judges once; an agent that still runs gets `flush_grace` seconds to flush."""
    failure = "none" if borrowed else "poweroff"
    return _fill(layout.DEADMAN_SERVICE, FLUSH_GRACE=whole_seconds(flush_grace), FAILURE=failure)


def deadman_timer(*, poll: float) -> str:
    """The timer that judges every `poll` seconds, from boot on."""
    return _fill(layout.DEADMAN_TIMER, POLL=whole_seconds(poll))


def agent_service(sha256: str, *, flush_grace: float = 60.0) -> str:
    """The unit of the agent with this content: restarted when it fails or is killed, not after a clean exit."""
    return _fill(layout.AGENT_SERVICE, AGENT=layout.agent_directory(sha256), FLUSH_GRACE=whole_seconds(flush_grace))
