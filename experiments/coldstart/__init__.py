"""The cold-start experiment, described in README.md."""
