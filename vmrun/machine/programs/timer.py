"""Whether the dead-man timer is armed. Arguments: the timer's unit, the state directory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time

SECONDS = {
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1,
    "min": 60,
    "h": 3600,
    "d": 86400,
    "w": 604800,
    "month": 2629800,
    "y": 31557600,
}


def properties(unit: str) -> dict[str, str]:
    """What the manager says of the unit."""
    names = "ActiveState,UnitFileState,NextElapseUSecMonotonic"
    done = subprocess.run(
        ["systemctl", "show", "--property=" + names, unit], stdout=subprocess.PIPE, check=False, timeout=20
    )
    return dict(line.split("=", 1) for line in done.stdout.decode().splitlines() if "=" in line)


def seconds(text: str) -> float | None:
    """A time span of systemd (`1min 2.5s`) in seconds; None for never, or for now running."""
    parts = re.findall(r"([0-9.]+)(us|ms|s|min|h|d|w|month|y)\b", text)
    return sum(float(number) * SECONDS[unit] for number, unit in parts) if parts else None


def number(path: str) -> int | None:
    """The time in a file, or None."""
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read(20))
    except (OSError, ValueError):
        return None


def main(unit: str, state: str) -> None:
    """Print the state of the unit, seconds until it looks next, and both times."""
    found = properties(unit)
    elapse = seconds(found.get("NextElapseUSecMonotonic", ""))
    document = {
        "active": found.get("ActiveState", ""),
        "enabled": found.get("UnitFileState", ""),
        "next_in": None if elapse is None else elapse - time.monotonic(),
        "now": int(time.time()),  # noqa: TID251 - runs alone on the machine
        "lease": number(os.path.join(state, "lease")),
        "hard_deadline": number(os.path.join(state, "hard_deadline")),
    }
    sys.stdout.write(json.dumps(document))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
