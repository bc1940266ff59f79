"""The double of IBM Cloud VPC Gen2: speaks its API to the real SDK, and boots machines."""

from __future__ import annotations

from .double import IbmDouble, open_double
from .world import Pace

__all__ = ["IbmDouble", "Pace", "open_double"]
