"""Runs every benchmark, one after the other, and fails if one of them does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHMARKS = ("cli_start.py", "flights_vs_pool.py", "noop_million.py", "shared_data.py")


def main() -> int:
    folder = Path(__file__).resolve().parent
    failed = []
    for name in BENCHMARKS:
        print(f"\n== {name}", flush=True)
        if subprocess.run([sys.executable, str(folder / name)], check=False, timeout=3600).returncode:
            failed.append(name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
