"""The index: a catalog's prefix tree, flattened level by level."""
