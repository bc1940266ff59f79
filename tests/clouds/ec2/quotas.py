"""The account's quotas of vCPUs, by the buckets and codes of Service Quotas."""

from __future__ import annotations

import re
from collections.abc import Iterator

#: Code of the quota → what it is called, and which types count against it (the letters before the first digit).
BUCKETS = {
    "L-1216C47A": "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances",
    "L-34B43A08": "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests",
    "L-7295265B": "Running On-Demand X instances",
    "L-E3A00192": "All X Spot Instance Requests",
    "L-43DA4232": "Running On-Demand High Memory instances",
    "L-DB2E81BA": "Running On-Demand G and VT instances",
    "L-3819A6DF": "All G and VT Spot Instance Requests",
    "L-417A185B": "Running On-Demand P instances",
    "L-7212CCBC": "All P4, P3 and P2 Spot Instance Requests",
}
_OF_FAMILY = {
    "x": ("L-7295265B", "L-E3A00192"),
    "u": ("L-43DA4232", "L-43DA4232"),
    "g": ("L-DB2E81BA", "L-3819A6DF"),
    "vt": ("L-DB2E81BA", "L-3819A6DF"),
    "p": ("L-417A185B", "L-7212CCBC"),
}


def bucket_of(instance_type: str, *, spot: bool) -> str:
    """The code of the quota that a type counts against."""
    letters = re.match(r"[a-z]+", instance_type)
    codes = _OF_FAMILY.get(letters[0] if letters else "", ("L-1216C47A", "L-34B43A08"))
    return codes[spot]


class Quotas:
    """vCPUs that may run at once; each region has its own."""

    def __init__(self) -> None:
        self._limits: dict[tuple[str, str], float] = {}
        #: For all that nobody set.
        self.default = 4096.0

    def limit(self, region: str, code: str) -> float:
        return self._limits.get((region, code), self.default)

    def set(self, code: str, limit: float, region: str = "us-east-1") -> None:
        """From now on."""
        self._limits[region, code] = limit

    def of_region(self, region: str) -> Iterator[dict[str, object]]:
        """As Service Quotas tells them."""
        for code, name in BUCKETS.items():
            yield {
                "ServiceCode": "ec2",
                "ServiceName": "Amazon Elastic Compute Cloud (Amazon EC2)",
                "QuotaArn": f"arn:aws:servicequotas:{region}::ec2/{code}",
                "QuotaCode": code,
                "QuotaName": name,
                "Value": self.limit(region, code),
                "Unit": "None",
                "Adjustable": True,
                "GlobalQuota": False,
            }
