"""The double of Amazon EC2: moto's model of it, with what moto leaves out, over machines that boot."""

from __future__ import annotations

from tests.clouds.machines import Machines
from tests.clouds.trouble import Script

from .double import Ec2Double


def open_double(machines: Machines, host: str = "127.0.0.1", script: Script | None = None, port: int = 0) -> Ec2Double:
    """Start it on an address of this machine."""
    return Ec2Double(machines, host, script or Script(), port)


__all__ = ["Ec2Double", "open_double"]
