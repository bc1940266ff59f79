"""Waits until cloud-init is through. Arguments: seconds to wait, cloud-init's run directory."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

STAGES = ("init-local", "init", "modules-config", "modules-final")


def load(path: str) -> dict[str, Any]:
    """A JSON file's "v1" part, or nothing."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file).get("v1") or {}
    except (OSError, ValueError):
        return {}


def main(seconds: float, directory: str) -> None:
    """Print whether it finished, whether it is disabled, and its errors so far."""
    give_up = time.monotonic() + seconds
    finished = os.path.join(directory, "result.json")
    disabled = os.path.join(directory, "disabled")
    while not (os.path.exists(finished) or os.path.exists(disabled)) and time.monotonic() < give_up:
        time.sleep(0.05)  # noqa: TID251 - runs alone on the machine
    status = load(os.path.join(directory, "status.json"))
    errors = [error for stage in STAGES for error in (status.get(stage) or {}).get("errors") or []]
    document = {
        "finished": os.path.exists(finished),
        "disabled": os.path.exists(disabled),
        "stage": status.get("stage") or "",
        "errors": [str(error)[:500] for error in errors + (load(finished).get("errors") or [])],
    }
    sys.stdout.write(json.dumps(document))


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2])
