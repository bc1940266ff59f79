"""Ways to reach a machine: SSH, and this very machine."""
