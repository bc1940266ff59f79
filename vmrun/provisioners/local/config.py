"""The guardian's configuration, which is the user data of a local machine. Loaded by the guardian."""

from __future__ import annotations

import json
import math
from typing import NamedTuple


class GuardianConfig(NamedTuple):
    """What is fixed for a machine's life. Durations are seconds."""

    #: Seconds since the epoch.
    hard_deadline: float
    #: How long the machine waits for its first lease renewal.
    boot_grace: float
    #: How often lease and deadline are looked at.
    poll: float = 0.5
    #: How long the agent may take to end when it is told to.
    flush_grace: float = 60.0


#: Least and most of each field: a machine whose limits are not sane is never started.
_BOUNDS = {
    "hard_deadline": (0.0, 1e11),
    "boot_grace": (0.0, 86400.0),
    "poll": (0.01, 5.0),
    "flush_grace": (0.0, 3600.0),
}


def user_data(*, hard_deadline: float, boot_grace: float, poll: float = 0.5, flush_grace: float = 60.0) -> str:
    """The user data of a local machine: byte-stable for the same values. Raises ValueError on one out of bounds."""
    config = GuardianConfig(hard_deadline, boot_grace, poll, flush_grace)
    text = json.dumps(config._asdict(), sort_keys=True, separators=(",", ":"))
    parse(text)
    return text


def parse(text: str) -> GuardianConfig:
    """The configuration that some user data holds. Raises ValueError, naming the field."""
    try:
        data = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(data, dict) or set(data) != set(_BOUNDS):
        raise ValueError(f"expected an object with exactly the fields {', '.join(_BOUNDS)}")
    return GuardianConfig(**{field: _number(field, data[field]) for field in _BOUNDS})


def _number(field: str, value: object) -> float:
    least, most = _BOUNDS[field]
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{field} is not a number")
    if not least <= value <= most:
        raise ValueError(f"{field} is {value}, not between {least} and {most}")
    return float(value)
