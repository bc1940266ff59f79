"""Doubles by the name of their cloud; each is loaded when it is asked for."""

from __future__ import annotations

from importlib import import_module

from .double import Double
from .machines import Machines
from .trouble import Script

NAMES = ("ec2", "gce", "ibm")


def open_double(name: str, machines: Machines, host: str = "127.0.0.1", port: int = 0) -> Double:
    """Start the double of a cloud on an address of this machine; port 0 is any that is free.

    Machines are the caller's: `close` of the double removes those that it made, not `machines` itself.
    """
    if name not in NAMES:
        raise ValueError(f"there is no double of {name!r}; there are {', '.join(NAMES)}")
    package = import_module(f"tests.clouds.{name}")
    double: Double = package.open_double(machines, host, Script(), port)
    return double
