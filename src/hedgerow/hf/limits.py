"""The lengths that a model takes, and rotary angles that depend on the length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hedgerow.hf.model import INF


def max_positions(config: Any) -> int | None:
    """Find the number of positions of a model; None if it takes more than its configuration states.

    A model with a table of positions has no other ones, and plain rotary angles are not trained for them. Scaled
    rotary angles (YaRN, dynamic NTK, longrope, ...) are for longer sequences, and ALiBi and state space models have no
    limit.
    """
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0 or _has_alibi(config):
        return None
    scaled = any(group.get("rope_type", "default") != "default" for group in _rope_groups(config))
    return None if scaled else positions


def rope_switch(config: Any) -> float:
    """The length above which a model uses other rotary angles for all keys ("longrope"); infinity for most models."""
    lengths = (
        group.get("original_max_position_embeddings")
        for group in _rope_groups(config)
        if group.get("rope_type") == "longrope"
    )
    return min((length for length in lengths if length), default=INF)


def rope_growth(config: Any) -> float:
    """The length above which angles grow with every token ("dynamic"); infinity for most models."""
    groups = [group for group in _rope_groups(config) if "dynamic" in str(group.get("rope_type"))]
    lengths = [group.get("original_max_position_embeddings") for group in groups]
    lengths.append(getattr(config, "max_position_embeddings", None))
    return min((length for length in lengths if length), default=INF) if groups else INF


def reset_rope(model: Any) -> None:
    """Set angles that grow ("dynamic") back to those of short sequences: a longer search before left its own."""
    for module in model.modules():
        for name in [name for name in vars(module) if name.endswith("max_seq_len_cached")]:
            prefix = name.removesuffix("max_seq_len_cached")
            original = getattr(module, f"{prefix}original_inv_freq", None)
            if original is not None:
                current = getattr(module, f"{prefix}inv_freq")
                module.register_buffer(f"{prefix}inv_freq", original.to(current.device), persistent=False)
                setattr(module, name, module.original_max_seq_len)


def _rope_groups(config: Any) -> list[Mapping[str, Any]]:
    """The parameters of rotary angles, which can differ by the kind of a layer."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    return [rope, *(value for value in rope.values() if isinstance(value, Mapping))]


def _has_alibi(config: Any) -> bool:
    attention = getattr(config, "attn_config", None)
    return (
        bool(getattr(config, "alibi", False))
        or getattr(config, "position_embedding_type", None) == "alibi"
        or bool(getattr(attention, "alibi", False))
    )
