"""Machines for a job: an offer taken, an instance created, made ready, given back."""
