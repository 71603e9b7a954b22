"""Decoding: the step from level to level, the search around it, and the oracle that says what is right."""
