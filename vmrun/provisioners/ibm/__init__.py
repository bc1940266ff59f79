"""Machines on IBM Cloud VPC Gen2."""
