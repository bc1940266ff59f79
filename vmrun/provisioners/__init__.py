"""Drivers, one folder each. None imports another; SDKs load at first use."""
