"""The whole of vmrun, as its users run it."""
