"""IBM Cloud VPC."""
