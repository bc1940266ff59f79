"""The drivers of the clouds and their estates, each with the real SDK against a double of its cloud."""
