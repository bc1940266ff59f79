"""What every VM gets."""
