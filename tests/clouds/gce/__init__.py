"""The double of Google Compute Engine: compute v1 as its discovery document has it, on machines that boot."""

from __future__ import annotations

from .double import GceDouble, open_double

__all__ = ["GceDouble", "open_double"]
