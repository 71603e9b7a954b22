"""What `generate` adds to the scores of finished beams: the end of the longest SIDs, and the length penalty."""

from __future__ import annotations

import torch
from torch import Tensor

from hedgerow.decode.beams import Beams
from hedgerow.index.trie import Trie

INF = float("inf")


def has_all_codes(index: Trie, codes: Tensor) -> Tensor:
    """bool [B, M]: whether beams of finished codes [B, M, L] have SIDs of the full length, with no end among them."""
    end = index.end_codes[-1]
    return codes[..., -1] != end if end is not None else torch.ones_like(codes[..., -1], dtype=torch.bool)


def finished(index: Trie, beams: Beams, end_log_probs: Tensor | None, length_penalty: float) -> Beams:
    """Compute the final scores of beams, and sort them by these; equal scores go by SID.

    Args:
        index: the index that was searched.
        beams: finished beams [B, M].
        end_log_probs: [B, M], the log-probability of the end after the last code of SIDs of the full length. None: the
            end counts nothing.
        length_penalty: scores are divided by the length ** length_penalty. The length is the number of codes, and of
            ends if SIDs are ragged.
    """
    scores, full = beams.scores, has_all_codes(index, beams.codes)
    if end_log_probs is not None:
        scores = torch.where(full, scores + end_log_probs.nan_to_num(nan=-INF, neginf=-INF), scores)
    if length_penalty:
        scores = scores / lengths(index, beams.codes) ** length_penalty
    dead = scores == -INF
    # The beams of equal scores are sorted by their leaves, which are numbered in the order of SIDs.
    order = beams.states.long().argsort(dim=-1, stable=True)
    order = order.gather(-1, scores.gather(-1, order).argsort(dim=-1, descending=True, stable=True))
    states = beams.states.masked_fill(dead, -1)
    codes = beams.codes.masked_fill(dead[..., None], -1)
    parents = beams.parents.masked_fill(dead, 0)
    rows = order[..., None].expand(-1, -1, codes.shape[-1])
    return Beams(
        codes.gather(1, rows),
        scores.gather(-1, order),
        states.gather(-1, order),
        parents.gather(-1, order),
        None if beams.code_scores is None else beams.code_scores.gather(1, rows),
    )


def lengths(index: Trie, codes: Tensor) -> Tensor:
    """[B, M], the number of tokens that `generate` writes for finished codes [B, M, L]: with the end, if it has one."""
    length = torch.full(codes.shape[:-1], index.num_levels + int(index.ragged), device=codes.device)
    for level, end in enumerate(index.end_codes):
        if end is not None:
            length = length - (codes[..., level] == end).int()
    return length
