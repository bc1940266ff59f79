"""The command line, against a deployment that is a fake."""
