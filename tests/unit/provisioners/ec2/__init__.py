"""The pure parts of the EC2 driver."""
