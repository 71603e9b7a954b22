"""Compiled loops of the upward pass. They use one thread, so any thread and any forked process can run them."""

from __future__ import annotations

import numpy as np
from numba import njit

from hedgerow._compiled import cached_njit


@njit(inline="always")
def _low_bits(count):
    """A word with its `count` lowest bits set; `count` is 0 to 31."""
    return (np.uint32(1) << np.uint32(count)) - np.uint32(1)


@njit(inline="always")
def _any_bit(words, start, stop):
    """Whether any bit from `start` to `stop` - 1 is set."""
    word, last = start >> 5, stop >> 5
    head = words[word] & ~_low_bits(start & 31)
    if word == last:
        return (head & _low_bits(stop & 31)) != 0
    if head != 0:
        return True
    for between in range(word + 1, last):
        if words[between] != 0:
            return True
    return (stop & 31) != 0 and (words[last] & _low_bits(stop & 31)) != 0


@cached_njit(nogil=True)
def any_of_spans(words, child_start):
    """Words of P parents: whether any of the children child_start[p] to child_start[p + 1] - 1 is alive."""
    num_parents = len(child_start) - 1
    out = np.zeros(max(1, (num_parents + 31) >> 5), np.uint32)
    start = np.int64(child_start[0])
    for word in range(len(out)):
        alive_parents = np.uint32(0)
        first_parent = word << 5
        for bit in range(min(32, num_parents - first_parent)):
            stop = np.int64(child_start[first_parent + bit + 1])
            if _any_bit(words, start, stop):
                alive_parents |= np.uint32(1) << np.uint32(bit)
            start = stop
        out[word] = alive_parents
    return out


@cached_njit(nogil=True)
def any_with_forks(words, forks, num_parents):
    """Words of P parents: whether any child is alive, if few parents have more than one child.

    Between two forks, 32 parents are copied at a time.
    """
    out = np.zeros(max(1, (num_parents + 31) >> 5), np.uint32)
    passed, last = 0, len(words) - 1
    for word in range(len(out)):
        first_parent = word << 5
        if passed == len(forks) or forks[passed] >= first_parent + 32:
            first_child = first_parent + passed
            child_word, shift = first_child >> 5, np.uint32(first_child & 31)
            alive_parents = words[child_word] >> shift
            if shift and child_word < last:
                alive_parents |= words[child_word + 1] << (np.uint32(32) - shift)
            out[word] = alive_parents
            continue
        alive_parents = np.uint32(0)
        for bit in range(min(32, num_parents - first_parent)):
            child = first_parent + bit + passed
            alive = (words[child >> 5] >> np.uint32(child & 31)) & np.uint32(1)
            while passed < len(forks) and forks[passed] == first_parent + bit:
                passed += 1
                child += 1
                alive |= (words[child >> 5] >> np.uint32(child & 31)) & np.uint32(1)
            alive_parents |= alive << np.uint32(bit)
        out[word] = alive_parents
    if num_parents & 31:
        out[num_parents >> 5] &= _low_bits(num_parents & 31)
    return out


@cached_njit(nogil=True)
def over_codes(words, allowed):
    """Words [P, W]: the bits of the nodes, in their order, at the positions of the bits set in `allowed` [P, W]."""
    out = np.empty_like(allowed)
    node = 0
    for parent in range(allowed.shape[0]):
        for word in range(allowed.shape[1]):
            bits, alive_codes = allowed[parent, word], np.uint32(0)
            while bits != 0:
                low = bits & (~bits + np.uint32(1))
                alive_codes |= low & -((words[node >> 5] >> np.uint32(node & 31)) & np.uint32(1))
                bits ^= low
                node += 1
            out[parent, word] = alive_codes
    return out
