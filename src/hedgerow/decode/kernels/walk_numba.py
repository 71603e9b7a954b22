"""The walk for a CPU, compiled: one row after another, so that it costs its own children and few calls."""

# pyright: reportCallIssue=false

from __future__ import annotations

import numpy as np
from numba import njit

from hedgerow.decode.device import DeviceLevel
from hedgerow.decode.kernels.numba import children_of, host_level


def child_by_token(level: DeviceLevel, code_of_token, tokens, states):
    """Returns the child [R] int32 of each of `states` [R] by each of `tokens` [R]; -1 where there is none.

    `code_of_token` [V + 1]: the last entry is that of all tokens beyond V.
    """
    return _child_rows(*host_level(level)[:3], code_of_token, tokens, states)


def write_allowed(level: DeviceLevel, token_of_code, states, scores, out):
    """Copies from `scores` to `out` [R, V] float32 the columns of the tokens that may follow each of `states` [R]."""
    _write_rows(*host_level(level)[:3], token_of_code, states, scores, out)


@njit(cache=True, nogil=True)
def _child_rows(kind, pointers, codes, code_of_token, tokens, states):
    found = np.full(len(states), -1, np.int32)
    for row in range(len(states)):
        code = code_of_token[min(tokens[row], len(code_of_token) - 1)]
        if states[row] < 0 or code < 0:
            continue
        low, end = children_of(kind, pointers, states[row])
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
def _write_rows(kind, pointers, codes, token_of_code, states, scores, out):
    for row in range(len(states)):
        if states[row] < 0:
            continue
        first, end = children_of(kind, pointers, states[row])
        read, write = scores[row], out[row]
        for node in range(first, end):
            # Unsigned, so that no index is looked at for a sign.
            token = np.uintp(token_of_code[np.uintp(codes[np.uintp(node)])])
            write[token] = read[token]
