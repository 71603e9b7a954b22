"""The loops of the upward pass, compiled: on one thread, so that any thread and any forked process may run them."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(inline="always")
def _low_bits(count):
    """A word with its `count` lowest bits set; 0 to 31."""
    return (np.uint32(1) << np.uint32(count)) - np.uint32(1)


@njit(inline="always")
def _any_bit(words, first, end):
    """Whether any bit from `first` up to `end` is set."""
    word, last = first >> 5, end >> 5
    head = words[word] & ~_low_bits(first & 31)
    if word == last:
        return (head & _low_bits(end & 31)) != 0
    if head != 0:
        return True
    for at in range(word + 1, last):
        if words[at] != 0:
            return True
    return (end & 31) != 0 and (words[last] & _low_bits(end & 31)) != 0


@njit(cache=True, nogil=True)
def any_of_spans(words, start):
    """Parents [P]: whether any of the children start[p] to start[p + 1] - 1 is alive."""
    parents = len(start) - 1
    out = np.zeros(max(1, (parents + 31) >> 5), np.uint32)
    first = np.int64(start[0])
    for word in range(len(out)):
        found = np.uint32(0)
        base = word << 5
        for bit in range(min(32, parents - base)):
            end = np.int64(start[base + bit + 1])
            if _any_bit(words, first, end):
                found |= np.uint32(1) << np.uint32(bit)
            first = end
        out[word] = found
    return out


@njit(cache=True, nogil=True)
def any_with_forks(words, forks, parents):
    """Parents [P]: whether any child is alive, where few have more than one: 32 at once between two forks."""
    out = np.zeros(max(1, (parents + 31) >> 5), np.uint32)
    passed, last = 0, len(words) - 1
    for word in range(len(out)):
        base = word << 5
        if passed == len(forks) or forks[passed] >= base + 32:
            first = base + passed
            at, shift = first >> 5, np.uint32(first & 31)
            found = words[at] >> shift
            if shift and at < last:
                found |= words[at + 1] << (np.uint32(32) - shift)
            out[word] = found
            continue
        found = np.uint32(0)
        for bit in range(min(32, parents - base)):
            child = base + bit + passed
            alive = (words[child >> 5] >> np.uint32(child & 31)) & np.uint32(1)
            while passed < len(forks) and forks[passed] == base + bit:
                passed += 1
                child += 1
                alive |= (words[child >> 5] >> np.uint32(child & 31)) & np.uint32(1)
            found |= alive << np.uint32(bit)
        out[word] = found
    if parents & 31:
        out[parents >> 5] &= _low_bits(parents & 31)
    return out


@njit(cache=True, nogil=True)
def over_codes(words, allowed):
    """The bits of nodes, in their order, in the places of the bits that are set in `allowed` [P, W]."""
    out = np.empty_like(allowed)
    node = 0
    for parent in range(allowed.shape[0]):
        for at in range(allowed.shape[1]):
            bits, found = allowed[parent, at], np.uint32(0)
            while bits != 0:
                low = bits & (~bits + np.uint32(1))
                found |= low & -((words[node >> 5] >> np.uint32(node & 31)) & np.uint32(1))
                bits ^= low
                node += 1
            out[parent, at] = found
    return out
