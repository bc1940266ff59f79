"""The agent: runs on the VM, pulls jobs from the store, and gives the VM up when there is no more to do."""
