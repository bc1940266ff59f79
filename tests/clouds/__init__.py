"""Doubles of the three clouds: local servers that speak their APIs to the real SDKs, and boot machines."""
