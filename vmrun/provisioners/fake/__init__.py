"""A cloud in memory, for tests and simulations."""

from .cloud import Call, FakeCloud, Machine
from .knobs import NONE, Knobs, Span

__all__ = ["NONE", "Call", "FakeCloud", "Knobs", "Machine", "Span"]
