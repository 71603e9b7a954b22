"""Compiled walks of the trie on a CPU: src/native/walk.c. A row costs its own children only, and a batch one call."""

from __future__ import annotations

import numpy as np

from hedgerow._compiled import native
from hedgerow.decode.device import DeviceLevel
from hedgerow.decode.kernels.native import host_level


def child_by_token(level: DeviceLevel, code_of_token: np.ndarray, tokens: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Find the child of each state by a token.

    Args:
        level: the level of the children.
        code_of_token: [V + 1] int32, the code of each token, negative if it has none. The last entry is for all other
            ids: negative ones, and those from V on.
        tokens: [R] integers.
        states: [R] int32 nodes of the level before; negative if dead.

    Returns:
        [R] int32; -1 if the state is dead or has no such child.
    """
    assert native is not None
    children = np.empty(len(states), np.int32)
    tokens, states = np.ascontiguousarray(tokens, np.int64), np.ascontiguousarray(states)
    native.child_rows(*host_level(level)[:6], code_of_token, tokens, states, children)
    return children


def write_allowed(
    level: DeviceLevel, token_of_code: np.ndarray, states: np.ndarray, scores: np.ndarray, out: np.ndarray
) -> np.ndarray:
    """Copy the scores of the tokens that can follow each state.

    Args:
        level: the level of the tokens.
        token_of_code: [C] int64, the token of each code.
        states: [R] int32 nodes of the level before; rows of negative states are not written.
        scores: [R, V] float32 or float64.
        out: [R, V] of the same dtype, in one piece, written at the columns of the allowed tokens.

    Returns:
        The best of these scores [R]: -inf if there is none, NaN if one of them is NaN.
    """
    assert native is not None
    best = np.empty(len(states), out.dtype)
    states, scores = map(np.ascontiguousarray, (states, scores))
    native.write_rows(*host_level(level)[:6], token_of_code, states, scores, out, best, out.shape[1])
    return best
