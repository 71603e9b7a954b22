"""The walk for a CPU, compiled: one row after another, so that it costs its own children and few calls."""

# pyright: reportCallIssue=false

from __future__ import annotations

import numpy as np
from numba import njit

from hedgerow.decode.numba import _children


@njit(cache=True, nogil=True)
def child_rows(kind, pointers, codes, code_of_token, tokens, states):
    """The child [R] int32 of each of `states` [R] by each of `tokens` [R]; -1 where there is none."""
    found = np.full(len(states), -1, np.int32)
    for row in range(len(states)):
        code = code_of_token[tokens[row]]
        if states[row] < 0 or code < 0:
            continue
        low, end = _children(kind, pointers, states[row])
        high = end
        while low < high:
            middle = (low + high) // 2
            if np.int64(codes[middle]) < code:
                low = middle + 1
            else:
                high = middle
        if low < end and np.int64(codes[low]) == code:
            found[row] = low
    return found


@njit(cache=True, nogil=True)
def write_children(kind, pointers, codes, token_of_code, states, scores, out):
    """Copies from `scores` to `out` [R, V] the columns of the tokens that may follow each of `states` [R]."""
    for row in range(len(states)):
        if states[row] < 0:
            continue
        first, end = _children(kind, pointers, states[row])
        for node in range(first, end):
            token = token_of_code[codes[node]]
            out[row, token] = scores[row, token]
