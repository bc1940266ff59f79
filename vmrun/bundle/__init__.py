"""What a job is made of: the script, the local modules it imports, and the arguments of its tasks."""
