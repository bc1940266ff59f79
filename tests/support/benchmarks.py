"""Makes the modules of `benchmarks/` importable: they are programs beside each other, not a package."""

from __future__ import annotations

import sys

from tests.support.source import ROOT

FOLDER = ROOT / "benchmarks"
if str(FOLDER) not in sys.path:
    sys.path.append(str(FOLDER))
