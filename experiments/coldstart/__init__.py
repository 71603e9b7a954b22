"""The cold-start experiment: see README.md."""
