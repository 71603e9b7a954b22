"""Constraint sets, exclusions and the rules of a batch, on the host."""
