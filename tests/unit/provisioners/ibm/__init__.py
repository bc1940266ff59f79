"""The pure parts of the driver of IBM Cloud VPC, and the program that it puts on machines."""
