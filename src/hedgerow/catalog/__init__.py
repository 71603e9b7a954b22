"""Catalogs: item ids, Semantic IDs and attributes, validated on construction."""
