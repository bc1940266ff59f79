"""The EC2 driver: its pure parts, and its behaviour against an EC2 in this process."""
