"""Tests that boot machines on Docker Engine."""
