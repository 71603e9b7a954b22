"""Compiled walks of the trie on a CPU. Each row costs only its own children, and a batch costs one call."""

# pyright: reportCallIssue=false

from __future__ import annotations

import numpy as np

from hedgerow._compiled import cached_njit
from hedgerow.decode.device import DeviceLevel
from hedgerow.decode.kernels.host import host_level
from hedgerow.decode.kernels.numba import children_of


def child_by_token(level: DeviceLevel, code_of_token, tokens, states):
    """Find the child of each state by a token.

    Args:
        level: the level of the children.
        code_of_token: [V + 1] the code of each token, negative if it has none. The last entry is for all other ids:
            negative ones, and those from V on.
        tokens: [R].
        states: [R] int32 nodes of the level before; negative if dead.

    Returns:
        [R] int32; -1 if the state is dead or has no such child.
    """
    return _child_rows(*host_level(level)[:3], code_of_token, tokens, states)


def write_allowed(level: DeviceLevel, token_of_code, states, scores, out):
    """Copy the scores of the tokens that can follow each state.

    Args:
        level: the level of the tokens.
        token_of_code: [C] the token of each code.
        states: [R] int32 nodes of the level before; rows of negative states are not written.
        scores: [R, V] float32.
        out: [R, V] float32, written at the columns of the allowed tokens.

    Returns:
        The best of these scores [R]: -inf if there is none, NaN if one of them is NaN.
    """
    return _write_rows(*host_level(level)[:3], token_of_code, states, scores, out)


@cached_njit(nogil=True)
def _child_rows(kind, pointers, codes, code_of_token, tokens, states):
    children = np.full(len(states), -1, np.int32)
    for row in range(len(states)):
        token = tokens[row] if 0 <= tokens[row] < len(code_of_token) else len(code_of_token) - 1
        code = code_of_token[token]
        if states[row] < 0 or code < 0:
            continue
        low, stop = children_of(kind, pointers, states[row])
        high = stop
        while low < high:
            middle = (low + high) // 2
            if np.int64(codes[middle]) < code:
                low = middle + 1
            else:
                high = middle
        if low < stop and np.int64(codes[low]) == code:
            children[row] = low
    return children


@cached_njit(nogil=True)
def _write_rows(kind, pointers, codes, token_of_code, states, scores, out):
    best = np.full(len(states), -np.inf, out.dtype)
    for row in range(len(states)):
        if states[row] < 0:
            continue
        start, stop = children_of(kind, pointers, states[row])
        read, write, highest = scores[row], out[row], best[row]
        for node in range(start, stop):
            # Unsigned indexes need no check for negative values.
            token = np.uintp(token_of_code[np.uintp(codes[np.uintp(node)])])
            write[token] = read[token]
            # True for NaN, which then stays.
            if highest == highest and not highest >= read[token]:
                highest = read[token]
        best[row] = highest
    return best
