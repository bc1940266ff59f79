"""Each net against a forgotten VM alone: the client is killed, all other nets are off, and the VM is gone in time."""
