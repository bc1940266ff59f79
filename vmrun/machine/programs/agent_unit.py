"""Installs the agent's unit, which comes on standard input, and starts it. Arguments: the unit, its directory.

An agent that runs with this very unit is left alone; another is restarted with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys


def manager(*words: str, may_fail: bool = False) -> str:
    """One call of the manager; its failure ends this program, unless it may fail."""
    done = subprocess.run(["systemctl", *words], capture_output=True, check=False, timeout=300)
    if done.returncode != 0 and not may_fail:
        sys.exit(f"systemctl {words[0]} failed: {done.stderr.decode().strip()[:500]}")
    return done.stdout.decode().strip()


def replace(path: str, text: bytes) -> bool:
    """Whether the file had to change."""
    try:
        with open(path, "rb") as file:
            if file.read() == text:
                return False
    except FileNotFoundError:
        pass
    with open(path + ".new", "wb") as file:
        file.write(text)
    os.replace(path + ".new", path)
    return True


def main(unit: str, directory: str) -> None:
    """Print whether the unit changed, and its state."""
    os.umask(0o022)
    state = ("show", "--property=ActiveState", "--value", unit)
    changed = replace(os.path.join(directory, unit), sys.stdin.buffer.read())
    if changed:
        manager("daemon-reload")
    manager("enable", unit)
    if changed or manager(*state) != "active":
        # An agent that failed too often before gets all its starts again.
        manager("reset-failed", unit, may_fail=True)
        manager("restart", unit)
    sys.stdout.write(json.dumps({"changed": changed, "state": manager(*state)}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
