"""The pure parts of the driver of Google Compute Engine, and all of it before a scripted Google."""
