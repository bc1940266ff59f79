"""What every VM gets: its paths, users, units and user data, and the commands that bring it up."""
