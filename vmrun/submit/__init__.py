"""From what a user asks for to a job in the store."""
