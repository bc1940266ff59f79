"""EC2: against moto in this process, and against the double."""
