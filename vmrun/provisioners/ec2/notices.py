"""How EC2 tells a spot instance that it will be interrupted.

Two minutes before it, and, where EC2 sees it coming, earlier as a recommendation. Source: "Spot Instance interruption
notices" and "EC2 instance rebalance recommendations" in the EC2 user guide.
"""

from __future__ import annotations

from vmrun.core.notices import Notices, Sign

#: Where instances find their metadata.
METADATA = "http://169.254.169.254"
_ROOT = "/latest/meta-data"
#: Version 2 of the service: a session's token first. Seconds that it lasts, the most that there is.
_TTL = "21600"


def notices(endpoint: str) -> Notices:
    """What to ask; `endpoint` is the service's address, "" for EC2's own."""
    return Notices(
        endpoint=(endpoint or METADATA).rstrip("/"),
        signs=(
            Sign(f"{_ROOT}/spot/instance-action", r"\{", "spot interruption notice"),
            Sign(f"{_ROOT}/events/recommendations/rebalance", r"\{", "rebalance recommendation", certain=False),
        ),
        session_path="/latest/api/token",
        session_headers={"X-aws-ec2-metadata-token-ttl-seconds": _TTL},
        session_header="X-aws-ec2-metadata-token",
        every=5.0,
    )
