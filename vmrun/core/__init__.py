"""Words, rules and protocol of vmrun: standard library only, no input or output of its own.

Time, randomness, object storage, signatures and clouds come in as the protocols of this package, so that
the simulation runs the very code that production runs.
"""
