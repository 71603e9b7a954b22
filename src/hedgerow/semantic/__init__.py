"""Semantic IDs from embeddings: training, encoding, deduplication and reports."""
