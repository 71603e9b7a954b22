"""Structure of a loaded index: whether its arrays form a trie, so that no search reads outside them.

Every array is read once, in blocks that fit the processor's cache, by a few threads. At 10M items, 8 levels and 2048
codes per level, this takes about 0.2 s.
"""

# pyarrow.compute creates its functions at import time, so pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from hedgerow.index.arrow import as_bools
from hedgerow.index.bits import count_bits
from hedgerow.index.compact import CompactLevel, bits_of, parents_of_range
from hedgerow.index.level import WORD_BITS, Level
from hedgerow.index.order import values_at
from hedgerow.index.select import BitVector, directory_of
from hedgerow.index.trie import Trie, plain_levels

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK = 2**16
THREADS = 4
# With fewer blocks than this, starting threads takes longer than the checks.
MIN_BLOCKS = 32

# A check returns a description of what is wrong, or None.
Check = Callable[[], str | None]


def structure_fault(index: Trie) -> str | None:
    """Check the arrays of an index, whose dtypes and shapes are correct.

    Returns:
        The first array that contradicts docs/reference/file-format.md, or None.
    """
    for number, level in enumerate(index.levels):
        if isinstance(level, CompactLevel) and level.bits is not None and (fault := _vector_fault(level, level.bits)):
            return f"level {number}: {fault}"
    # With correct bit vectors, levels can be decoded.
    levels = plain_levels(index)
    # The checks of codes and bitmaps rely on correct row pointers and forks.
    fault = _first_fault([*_fan_out_checks(index, levels)]) or _first_fault([*_code_checks(levels)])
    return fault or _ids_fault(index)


def _vector_fault(level: CompactLevel, bits: BitVector) -> str | None:
    """The vector begins and ends with a zero, has a one for each node, and its directory is correct."""
    length = bits_of(level.num_parents, level.num_nodes, level.high_bits)
    words = bits.words.reshape(-1)
    tail = np.unpackbits(words[(length - 1) // WORD_BITS :].view(np.uint8), bitorder="little")
    if words[0] & 1 or tail[(length - 1) % WORD_BITS :].any() or count_bits(words) != level.num_nodes:
        return "the bit vector does not have a one for each node"
    before = directory_of(bits.words)
    stored = bits.zeros_before, before[1] if bits.ones_before is None else bits.ones_before
    if not all(np.array_equal(array, right) for array, right in zip(stored, before, strict=True)):
        return "the directory of the bit vector is wrong"
    return None


def _first_fault(checks: list[Check]) -> str | None:
    if len(checks) < MIN_BLOCKS:
        return next((fault for check in checks if (fault := check())), None)
    with ThreadPoolExecutor(THREADS) as pool:
        return next((fault for fault in pool.map(lambda check: check(), checks) if fault), None)


def _fan_out_checks(index: Trie, levels: Sequence[Level]) -> Iterator[Check]:
    parents = 1
    for number, level in enumerate(levels):
        yield partial(_fan_out_fault, number, level, parents)
        parents = level.num_nodes
    yield partial(_leaf_fault, index)


def _fan_out_fault(number: int, level: Level, parents: int) -> str | None:
    largest = _largest_fan_out(level.child_start, level.forks, parents, level.num_nodes)
    # Only the root may have no children.
    if largest is None or (number and parents and not largest):
        return f"level {number}: the row pointers or forks do not give each node one parent, in order"
    if largest != level.max_branch:
        return f"level {number}: the largest branch factor is {largest:,}, but the manifest has {level.max_branch:,}"
    return None


def _leaf_fault(index: Trie) -> str | None:
    if _largest_fan_out(index.leaf_start, index.leaf_forks, index.num_sids, index.num_items) is None:
        return "a leaf has no item, or its items are out of order"
    return None


def _largest_fan_out(start: np.ndarray | None, forks: np.ndarray | None, parents: int, children: int) -> int | None:
    """The largest number of children of one parent; None if the arrays do not give each parent a child, in order."""
    if start is not None:
        if start[0] != 0 or start[-1] != children:
            return None
        if children == 0:
            return None if start.any() else 0
        return _largest_step(start)
    if forks is None:
        return min(1, children)
    if len(forks) != children - parents or not len(forks):
        return None
    if forks[0] < 0 or forks[-1] >= parents or not (forks[:-1] <= forks[1:]).all():
        return None
    last_of_run = np.flatnonzero(forks[:-1] != forks[1:])
    return int(np.diff(last_of_run, prepend=-1, append=len(forks) - 1).max()) + 1


def _largest_step(start: np.ndarray) -> int | None:
    """The largest difference of neighbours; None if they are not in strictly ascending order."""
    largest = 0
    for begin, stop in _blocks(len(start) - 1):
        low, high = start[begin:stop], start[begin + 1 : stop + 1]
        if not (low < high).all():
            return None
        largest = max(largest, int((high - low).max()))
    return largest


def _code_checks(levels: Sequence[Level]) -> Iterator[Check]:
    for number, level in enumerate(levels):
        for check in _level_checks(level):
            yield partial(_of_level, number, check)
    for number, (above, level) in enumerate(pairwise(levels), 1):
        if above.end is not None:
            for begin, stop in _blocks(above.num_nodes):
                yield partial(_of_level, number, partial(_end_fault, above, level, begin, stop))


def _of_level(number: int, check: Check) -> str | None:
    fault = check()
    return None if fault is None else f"level {number}: {fault}"


def _level_checks(level: Level) -> Iterator[Check]:
    if level.codebook_size <= np.iinfo(level.codes.dtype).max:
        for begin, stop in _blocks(level.num_nodes):
            yield partial(_range_fault, level, begin, stop)
    if level.child_start is not None:
        for begin, stop in _blocks(level.num_nodes):
            yield partial(_order_fault, level.codes, level.child_start, begin, stop)
    if level.forks is not None:
        yield partial(_fork_fault, level.codes, level.forks)
    if level.allowed is not None:
        yield partial(_count_fault, level.allowed, level.num_nodes)
        for begin, stop in _blocks(level.num_nodes):
            yield partial(_bitmap_fault, level, level.allowed, begin, stop)


def _range_fault(level: Level, begin: int, stop: int) -> str | None:
    largest = int(level.codes[begin:stop].max())
    if largest >= level.codebook_size:
        return f"code {largest:,} is outside the codebook of {level.codebook_size:,}"
    return None


ORDER = "the codes of a node's children are not in ascending order"


def _order_fault(codes: np.ndarray, start: np.ndarray, begin: int, stop: int) -> str | None:
    """Each of the nodes `begin` to `stop` - 1 has a larger code than the node before, or is a first child."""
    begin = max(begin, 1)
    fine = codes[begin:stop] > codes[begin - 1 : stop - 1]
    # With another dtype, NumPy would convert all of `start`.
    first, last = np.searchsorted(start, np.asarray([begin, stop], start.dtype))
    fine[start[first:last] - begin] = True
    return None if fine.all() else ORDER


def _fork_fault(codes: np.ndarray, forks: np.ndarray) -> str | None:
    nodes = forks + np.arange(1, len(forks) + 1)
    return None if (codes[nodes] > codes[nodes - 1]).all() else ORDER


BITMAP = "the bitmap does not match the codes"


def _count_fault(allowed: np.ndarray, nodes: int) -> str | None:
    words = allowed.reshape(-1)
    return None if sum(count_bits(words[slice(*block)]) for block in _blocks(len(words))) == nodes else BITMAP


def _bitmap_fault(level: Level, allowed: np.ndarray, begin: int, stop: int) -> str | None:
    """Each node has its bit. As the codes of a parent are distinct, no other bit is set if the counts are equal."""
    codes = level.codes[begin:stop]
    words = allowed.reshape(-1)[parents_of_range(level, begin, stop) * allowed.shape[1] + codes // WORD_BITS]
    bits = (words >> (codes % WORD_BITS).astype(np.uint32)) & np.uint32(1)
    return None if bits.all() else BITMAP


def _end_fault(above: Level, level: Level, begin: int, stop: int) -> str | None:
    """Each node of the level above with the end code has one child, and that child has the end code."""
    ended = np.flatnonzero(above.codes[begin:stop] == above.end) + begin
    first, last = level.children(ended)
    if (last - first == 1).all() and (level.codes[first] == level.end).all():
        return None
    return "a SID continues after its end code"


def _ids_fault(index: Trie) -> str | None:
    """The ids ascend strictly in a stored order. As it has N entries, each row is one of them."""
    if index._load_order is None:
        return None
    import pyarrow as pa

    check = partial(_id_block_fault, index.item_ids, index._id_order)
    fault = _first_fault([partial(check, begin, stop) for begin, stop in _blocks(index.num_items)])
    # Arrow keeps the memory of the blocks otherwise, in every process that loads an index.
    pa.default_memory_pool().release_unused()
    return fault


def _id_block_fault(ids: pa.ChunkedArray, order: np.ndarray, begin: int, stop: int) -> str | None:
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = order[max(begin - 1, 0) : stop]
    if rows.min() < 0 or rows.max() >= len(ids):
        return "the order of the item ids names a row that does not exist"
    values = values_at(ids, rows)
    if values.null_count:
        return "an item id is null"
    try:
        ascends = as_bools(pc.less(values[:-1], values[1:]))
        if ascends.all():
            return None
        place = int(np.argmin(ascends))
        if not pc.equal(values[place], values[place + 1]).as_py() or rows[place] == rows[place + 1]:
            return "the order of the item ids is not ascending"
    except pa.ArrowException as error:
        return f"the item ids cannot be compared: {error}"
    first, second = sorted(rows[place : place + 2].tolist())
    return f"item id {ids[first].as_py()!r} appears in rows {first} and {second}; item ids must be distinct"


def _blocks(length: int) -> Iterable[tuple[int, int]]:
    return ((begin, min(begin + BLOCK, length)) for begin in range(0, length, BLOCK))
