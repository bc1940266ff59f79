"""What a job has installed: its requirements, locked on the client, installed by uv where it runs."""
