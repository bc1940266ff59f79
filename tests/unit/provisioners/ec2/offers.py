"""What the tests of EC2's driver rent, and for whom."""

from __future__ import annotations

from typing import Any

from vmrun.core.clouds import Offer

REGION = "us-east-1"
OWNER, OTHER = "6a4yzy8c", "9173cd0h"


def an_offer(
    instance_type: str = "r6a.32xlarge", *, region: str = REGION, zone: str = "us-east-1a", **more: Any
) -> Offer:
    return Offer("ec2", instance_type, region, zone, more.pop("arch", "x86_64"), 128, 64, 1024 << 30, 7.25, **more)
