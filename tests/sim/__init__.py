"""Deterministic simulation of the journal protocol: one thread, virtual time, every fault drawn from a seed."""
