"""How Compute Engine tells a spot machine that it will be preempted: 30 seconds before.

Source: "Spot VMs: preemption process" and "Query the metadata server for maintenance event notices" in Google's Compute
Engine documentation.
"""

from __future__ import annotations

from vmrun.core.notices import Notices, Sign

#: Where machines find their metadata.
METADATA = "http://metadata.google.internal"
_ROOT = "/computeMetadata/v1/instance"


def notices(endpoint: str) -> Notices:
    """What to ask; `endpoint` is the service's address, "" for Google's own."""
    return Notices(
        endpoint=(endpoint or METADATA).rstrip("/"),
        signs=(
            Sign(f"{_ROOT}/preempted", "TRUE", "preemption notice"),
            # A spot machine is never moved to another host: maintenance ends it.
            Sign(f"{_ROOT}/maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE", "host maintenance"),
        ),
        headers={"Metadata-Flavor": "Google"},
        every=2.0,
    )
