"""Splicing sorted arrays: one pass that copies what stays, leaves out what goes, and puts in what is new."""

# pyright: reportCallIssue=false

from __future__ import annotations

import numpy as np
from numba import njit

# Bits of a filter for each value in it: one other value in 64 passes.
FILTER_BITS = 64
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@njit(inline="always")
def _copy(to, of):
    # Over slices from 0 on, which the compiler makes a copy of blocks of.
    for place in range(len(of)):
        to[place] = of[place]


@njit(nogil=True, cache=True)
def _splice(old, at, new, gone, out):
    read, write, g = 0, 0, 0
    for a in range(len(at) + 1):
        stop = at[a] if a < len(at) else len(old)
        while True:
            skips = g < len(gone) and gone[g] < stop
            end = gone[g] if skips else stop
            _copy(out[write : write + end - read], old[read:end])
            write += end - read
            read = end
            if not skips:
                break
            read += 1
            g += 1
        if a < len(at):
            out[write] = new[a]
            write += 1


@njit(nogil=True, cache=True)
def _splice_start(start, at, counts, gone, changed, deltas, out):
    total, largest, write, a, g, c = 0, 0, 0, 0, 0, 0
    for parent in range(len(start)):
        while a < len(at) and at[a] == parent:
            out[write] = total
            total += counts[a]
            largest = max(largest, counts[a])
            write += 1
            a += 1
        if parent == len(start) - 1:
            break
        if g < len(gone) and gone[g] == parent:
            g += 1
            continue
        out[write] = total
        count = np.int64(start[parent + 1] - start[parent])
        write += 1
        if c < len(changed) and changed[c] == parent:
            count += deltas[c]
            c += 1
        total += count
        largest = max(largest, count)
    out[write] = total
    return largest


@njit(nogil=True, cache=True)
def _lower_bounds(codes, first, end, wanted, out):
    for row in range(len(wanted)):
        low, high = np.int64(first[row]), np.int64(end[row])
        while low < high:
            middle = (low + high) // 2
            if codes[middle] < wanted[row]:
                low = middle + 1
            else:
                high = middle
        out[row] = low


@njit(nogil=True, cache=True)
def _passing_rows(values, bits, shift, out):
    passed = 0
    for row in range(len(values)):
        place = (np.uint64(values[row]) * MULTIPLIER) >> shift
        out[passed] = row
        passed += (bits[place >> np.uint64(5)] >> (place & np.uint64(31))) & np.uint32(1)
    return passed


def splice(old: np.ndarray, at: np.ndarray, new: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """Returns `old` [E] without the entries numbered `gone`, and with new[i] before the entry that was number at[i].

    Args:
        old: [E].
        at: [I] int64, rising or equal, 0 to E.
        new: [I], of the type of `old`.
        gone: [G] int64, rising.
    """
    out = np.empty(len(old) + len(at) - len(gone), old.dtype)
    _splice(old, at, new, gone, out)
    return out


def splice_start(
    start: np.ndarray, at: np.ndarray, counts: np.ndarray, gone: np.ndarray, changed: np.ndarray, deltas: np.ndarray
) -> tuple[np.ndarray, int]:
    """Returns row pointers [P + I - G + 1] int32 after parents came, went and changed, and their largest step.

    Args:
        start: [P + 1] int32.
        at: [I] int64, as for `splice`: where parents come in.
        counts: [I] int64, how many children each of them has.
        gone: [G] int64, rising: the parents that go, with all of their children.
        changed: [X] int64, rising: the parents that stay, and have more or fewer children than before.
        deltas: [X] int64, how many more.
    """
    out = np.empty(len(start) + len(at) - len(gone), np.int32)
    return out, int(_splice_start(start, at, counts, gone, changed, deltas, out))


def lower_bounds(codes: np.ndarray, first: np.ndarray, end: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Returns, for each of `wanted` [R], the first node from `first` [R] on, and before `end` [R], whose code is not
    below it, as int64; `end` where there is none. Codes [E] rise from `first` to `end`.
    """
    out = np.empty(len(wanted), np.int64)
    _lower_bounds(codes, first, end, wanted, out)
    return out


def find_integers(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Returns the row in `values` [N] of each of `wanted` [R], or -1; neither array has a value twice.

    A pass over `values` looks up one bit a value, in a table that stays in the cache; what passes is compared.
    """
    power = max(5, (FILTER_BITS * len(wanted)).bit_length())
    shift = np.uint64(64 - power)
    places = (wanted.astype(np.uint64) * MULTIPLIER) >> shift
    bits = np.zeros(1 << (power - 5), np.uint32)
    np.bitwise_or.at(bits, places >> np.uint64(5), np.uint32(1) << (places & np.uint64(31)).astype(np.uint32))
    # Not a page of it is touched beyond what passes.
    candidates = np.empty(len(values), np.int64)
    candidates = candidates[: _passing_rows(values, bits, shift, candidates)]
    order = np.argsort(wanted)
    ordered = wanted[order]
    near = np.minimum(np.searchsorted(ordered, values[candidates]), len(ordered) - 1)
    equal = ordered[near] == values[candidates] if len(ordered) else np.zeros(0, bool)
    rows = np.full(len(wanted), -1, np.int64)
    rows[order[near[equal]]] = candidates[equal]
    return rows
