"""The command line: one module per verb or group of verbs, and what they share."""
