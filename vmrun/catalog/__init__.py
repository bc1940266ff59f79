"""Instance types and prices of the clouds: what fits a need, in which order, with which cores, memory and quota.

Reads the dated file that comes with vmrun, or a refreshed one; loads no SDK.
"""

from __future__ import annotations

from .choosing import offers, regions, row_fits, sold
from .machines import EC2_QUOTA_NAMES, bucket, family, has_spot, is_throttled, physical_cores, usable
from .packaged import CLOUDS
from .ranking import rank
from .refreshed import problem, table
from .table import Table, table_of

__all__ = [
    "CLOUDS",
    "EC2_QUOTA_NAMES",
    "Table",
    "bucket",
    "family",
    "has_spot",
    "is_throttled",
    "offers",
    "physical_cores",
    "problem",
    "rank",
    "regions",
    "row_fits",
    "sold",
    "table",
    "table_of",
    "usable",
]
