"""The alive nodes of constraint sets on the host, against a walk of every item's SID."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import catalogs, dense_levels_of

import hedgerow as hr
from hedgerow._compiled import native
from hedgerow.constraints import alive
from hedgerow.index.bits import bits_before, packed, rank_of, unpacked


def naive_alive(index: hr.TrieIndex, mask: np.ndarray) -> list[set[int]]:
    """The nodes of each level that lead to an item of the mask, by walking the SID of each item."""
    start, stop = index.rows_of(np.arange(index.num_sids))
    sids = [sid for sid, first, end in zip(index.sids(), start, stop, strict=True) if mask[first:end].any()]
    levels: list[set[int]] = [set() for _ in index.levels]
    for sid in sids:
        state = np.zeros(1, np.int64)
        for level_number, (level, code) in enumerate(zip(index.levels, sid, strict=True)):
            state = level.find(state, np.asarray([code]))
            levels[level_number].add(int(state[0]))
    return levels


def nodes_of(index: hr.TrieIndex, words: tuple[np.ndarray, ...]) -> list[set[int]]:
    """The alive nodes of each level, from the words."""
    levels = []
    for level, level_words in zip(index.levels, words, strict=True):
        if level.allowed is None:
            levels.append(set(np.flatnonzero(unpacked(level_words, level.num_nodes)).tolist()))
            continue
        parents, codes = np.nonzero(np.unpackbits(level_words.view(np.uint8), axis=1, bitorder="little"))
        levels.append(set(level.find(parents, codes.astype(level.codes.dtype)).tolist()))
    return levels


@pytest.mark.parametrize("loops", ["numpy", "native"])
@settings(max_examples=150)
@given(catalog=catalogs(), dense=st.sampled_from(["auto", "all", "none"]), seed=st.integers(0, 2**32))
def test_alive_nodes_are_those_on_the_paths_of_items(loops, catalog, dense, seed):
    index = hr.build_index(catalog, dense_levels=dense_levels_of(dense, catalog.num_levels))
    mask = np.random.default_rng(seed).random(catalog.num_items) < 0.4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alive, "native", native if loops == "native" else None)
        words = index.constraint(mask, order="index")._alive.levels
    assert nodes_of(index, words) == naive_alive(index, mask)


@pytest.mark.parametrize("loops", ["numpy", "native"])
def test_forks_within_and_between_words(loops, monkeypatch):
    monkeypatch.setattr(alive, "native", native if loops == "native" else None)
    rng = np.random.default_rng(0)
    first = np.arange(3001)
    first[[5, 6, 31, 32, 64, 65, 66, 2999, 3000]] = [4, 4, 30, 31, 63, 63, 63, 2998, 2998]
    sids = np.stack([first, np.arange(3001), rng.integers(0, 9, 3001)], axis=1)
    index = hr.build_index(hr.Catalog(sids))
    assert [level.representation for level in index.levels][1:] == ["forked", "unary"]
    for share in (0.01, 0.5, 0.99):
        mask = rng.random(3001) < share
        assert nodes_of(index, index.constraint(mask, order="index")._alive.levels) == naive_alive(index, mask)


@pytest.mark.skipif(native is None, reason="hedgerow was built without a C compiler")
@pytest.mark.parametrize("fast", [True, False])
@given(st.lists(st.integers(1, 5) | st.integers(1, 200), min_size=1, max_size=60), st.integers(0, 2**32 - 1))
def test_runs_of_children_across_words(fast, counts, seed):
    start = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    children, rng = int(start[-1]), np.random.default_rng(seed)
    last = np.zeros(-(-children // 32), np.uint32)
    native.last_of_runs(start, last)
    assert np.flatnonzero(unpacked(last, children)).tolist() == (start[1:] - 1).tolist()
    for share in (0.0, 0.01, 0.2, 1.0):
        bits = rng.random(children) < share
        out = np.zeros(-(-len(counts) // 32), np.uint32)
        native.any_of_runs(packed(bits), last, out, fast)
        assert unpacked(out, len(counts)).tolist() == np.logical_or.reduceat(bits, start[:-1]).tolist()
        # The inverse: the bits of the children at positions that are set elsewhere.
        allowed = rng.permutation(np.arange(2 * children + 7) < children)
        spread = np.zeros(-(-len(allowed) // 32), np.uint32)
        native.over_codes(packed(bits), packed(allowed), spread, fast)
        assert unpacked(spread, len(allowed))[allowed].tolist() == bits.tolist()
        assert not unpacked(spread, len(allowed))[~allowed].any()


@pytest.mark.skipif(native is None, reason="hedgerow was built without a C compiler")
@pytest.mark.parametrize("start", [[0, 33], [0, 0, 4], [0, -5]])
def test_row_pointers_of_other_children_are_refused(start):
    with pytest.raises(IndexError, match="a child that does not exist"):
        native.last_of_runs(np.asarray(start, np.int32), np.zeros(1, np.uint32))


def test_ranks_of_bits():
    bits = np.random.default_rng(0).random(1000) < 0.3
    words = packed(bits)
    positions = np.arange(1001)
    expected = np.concatenate([[0], np.cumsum(bits)])
    assert (rank_of(words, bits_before(words), positions) == expected).all()


def test_one_bit_per_node():
    sids = np.random.default_rng(0).integers(0, 256, (50_000, 6))
    index = hr.build_index(hr.Catalog(sids, codebook_sizes=256))
    all_items = index.constraint(np.ones(50_000, bool), order="index")
    assert all_items.nbytes <= sum(index.nodes_per_level) / 8 * 1.05
