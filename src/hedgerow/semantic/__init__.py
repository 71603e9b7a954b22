"""Semantic IDs of items from their embeddings: trained quantisers, collisions, reports."""
