"""Who has a borrowed machine: prints the marker, or null. Argument: its path."""

from __future__ import annotations

import json
import sys


def main(path: str) -> None:
    """Print it."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        found = None
    sys.stdout.write(json.dumps({"marker": found}))


if __name__ == "__main__":
    main(sys.argv[1])
