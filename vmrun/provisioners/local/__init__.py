"""Machines that are a directory and a guardian process on this computer."""
