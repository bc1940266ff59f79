"""Runs as a process of its own, as `python -I -c`: commands one after the other, to the end whatever becomes of us.

Standard input is one JSON document, a list of `{"argv": […], "input": base64}`. Nothing is run until all of it has
arrived; the first command that fails is the last one that runs. What the last one left behind is printed as JSON.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys

#: Seconds for each command.
TIMEOUT = 120


def main() -> None:
    """Run all, report the last."""
    steps = json.load(sys.stdin)
    for step in steps:
        done = subprocess.run(
            step["argv"], input=base64.b64decode(step["input"]), capture_output=True, timeout=TIMEOUT, check=False
        )
        if done.returncode != 0:
            break
    report = {
        "exit_code": done.returncode,
        "stdout": base64.b64encode(done.stdout).decode(),
        "stderr": base64.b64encode(done.stderr).decode(),
    }
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main()
