"""Catalogs whose tries have every representation, changed arrays, and whether arrays form a trie, read naively."""

from itertools import pairwise

import numpy as np

import hedgerow as hr


def catalog_of(name: str) -> hr.Catalog:
    rng = np.random.default_rng(0)
    if name == "ragged":
        sids = [row[: 1 + number % 3] for number, row in enumerate(rng.integers(0, 5, (60, 3)).tolist())]
        return hr.Catalog(sids, codebook_sizes=(5, 6, 6), ragged=True)
    if name == "forked":
        # Of 16 nodes of level 0, two have two children at level 1, and one of these has two at level 2.
        return hr.Catalog(
            [[code, 0, 0] for code in range(16)] + [[2, 1, 0], [9, 1, 0], [9, 1, 3]], codebook_sizes=(300, 300, 4)
        )
    sids = np.stack([rng.integers(0, size, 200) for size in (4, 40, 6)], axis=1)
    return hr.Catalog(sids, codebook_sizes=(4, 40, 6))


def entries(array: np.ndarray) -> list[np.ndarray]:
    """Copies of an array with one entry changed, and one with the entries reversed."""
    changed = []
    top = np.iinfo(array.dtype)
    for place in {0, 1, array.size // 2, array.size - 1} & set(range(array.size)):
        old = int(array.flat[place])
        for value in {top.min, top.max, old + 1, old - 1, old ^ 1 << 5, 0} - {old}:
            if top.min <= value <= top.max:
                copy = array.copy()
                copy.flat[place] = value
                changed.append(copy)
    return [*changed, array[::-1].copy()]


def is_trie(index: hr.TrieIndex) -> bool:
    """Whether an index has the arrays that are built from its SIDs, read naively."""
    rows: list[tuple[int, ...]] = [()]
    for level in index.levels:
        spans = naive_spans(level.child_start, level.forks, len(rows), level.num_nodes)
        if spans is None:
            return False
        children = [[int(code) for code in level.codes[start:stop]] for start, stop in spans]
        if not all(codes == sorted(set(codes)) and codes and codes[-1] < level.codebook_size for codes in children):
            return False
        if level.allowed is not None and bits_of(level.allowed) != children:
            return False
        if max(map(len, children)) != level.max_branch:
            return False
        rows = [(*row, code) for row, codes in zip(rows, children, strict=True) for code in codes]
    for row in rows:
        ended = [code == end for code, end in zip(row, index.end_codes, strict=True)]
        if ended != sorted(ended):
            return False
    return naive_spans(index.leaf_start, index.leaf_forks, len(rows), index.num_items) is not None


def naive_spans(start, forks, parents: int, children: int) -> list[tuple[int, int]] | None:
    """The children of each parent, if each has one or more, in order."""
    if start is not None:
        edges = [int(edge) for edge in start]
    else:
        counts = [1] * parents
        for fork in [] if forks is None else [int(fork) for fork in forks]:
            if not 0 <= fork < parents:
                return None
            counts[fork] += 1
        if forks is not None and forks.tolist() != sorted(forks.tolist()):
            return None
        edges = [0, *np.cumsum(counts).tolist()]
    spans = list(pairwise(edges))
    whole = edges[0] == 0 and edges[-1] == children and len(spans) == parents
    return spans if whole and all(low < high for low, high in spans) else None


def bits_of(allowed: np.ndarray) -> list[list[int]]:
    return [
        [32 * word + bit for word in range(len(row)) for bit in range(32) if int(row[word]) >> bit & 1]
        for row in allowed
    ]
