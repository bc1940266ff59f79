"""Tests of the driver of Google Compute Engine."""
