"""Tests of `vmrun.core`: no input, no output, no waiting."""
