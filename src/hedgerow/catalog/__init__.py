"""Catalogs: item ids, Semantic IDs and attributes, checked when they come in."""
