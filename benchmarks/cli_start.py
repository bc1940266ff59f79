"""How long `vmrun --help` and `vmrun offers` take, as ratios to `python -c "import typer"`, the least of their cost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import harness


def runner(*command: str) -> harness.Run:
    """Runs a command to its end, output thrown away."""

    def run() -> None:
        # Reading to the end of the output, not waiting for the process: that looks only every 50 ms.
        subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=60)

    return run


def main() -> None:
    parser = harness.arguments(__doc__ or "")
    parser.set_defaults(pairs=15)
    vmrun = str(Path(sys.executable).with_name("vmrun"))
    peer = harness.Side("python -c 'import typer'", runner(sys.executable, "-c", "import typer"))
    sides = {
        "cli-help": (vmrun, "--help"),
        "cli-version": (vmrun, "--version"),
        "cli-offers": (vmrun, "offers", "--cpus", "128", "--memory", "1TB"),
    }
    pairs = parser.parse_args().pairs
    harness.report(
        [
            harness.compare(name, harness.Side(" ".join(command), runner(*command)), peer, pairs=pairs)
            for name, command in sides.items()
        ]
    )


if __name__ == "__main__":
    main()
