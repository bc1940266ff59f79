"""Machines on Google Compute Engine, which deletes each by itself after the time that its creation names."""
