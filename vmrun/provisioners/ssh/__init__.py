"""Hosts that the user has: leased for a job, cleaned after it, never deleted."""
