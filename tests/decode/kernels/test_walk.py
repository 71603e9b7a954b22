"""Walks of the trie on every backend equal TrieIndex.find and allowed_codes."""

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import BACKENDS, array_of, catalogs, dense_levels_of

import hedgerow as hr
from hedgerow.decode.kernels.walk import allowed_children, child_by_code
from hedgerow.decode.ops import to_numpy

pytestmark = pytest.mark.usefixtures("layout")


def compiled(backend: str, function: Any) -> Any:
    """A function as users run it: jitted in JAX."""
    return jax_jit(function) if backend == "jax" else function


@cache
def jax_jit(function: Any) -> Any:
    return pytest.importorskip("jax").jit(function, static_argnums=0)


def walk(device_index, backend: str, sids: np.ndarray, levels: int) -> np.ndarray:
    """The node [R] that the first `levels` codes of each of `sids` lead to."""
    states = array_of(backend, np.zeros(len(sids), np.int32))
    for level in range(levels):
        codes = array_of(backend, np.ascontiguousarray(sids[:, level]).astype(np.int32))
        states = compiled(backend, child_by_code)(device_index._ops, device_index.levels[level], states, codes)
        assert to_numpy(states).dtype == np.int32
    return to_numpy(states)


def assert_equals_index(catalog: hr.Catalog, backend: str, dense: str, seed: int) -> None:
    index = hr.build_index(catalog, dense_levels=dense_levels_of(dense, catalog.num_levels))
    device_index, rng = index.to(backend), np.random.default_rng(seed)
    sids = np.concatenate([catalog.sids[:20], catalog.sids[:20], rng.integers(-1, 70, (20, catalog.num_levels))])
    changed = rng.integers(len(sids), size=10), rng.integers(catalog.num_levels, size=10)
    sids[changed] += 1
    assert walk(device_index, backend, sids, catalog.num_levels).tolist() == index.find(sids).tolist()
    follow = compiled(backend, allowed_children)
    for level_number, level in enumerate(device_index.levels):
        states = walk(device_index, backend, sids, level_number)
        codes, valid = map(to_numpy, follow(device_index._ops, level, array_of(backend, states)))
        assert codes.shape == valid.shape
        for row, sid in enumerate(sids[:, :level_number].tolist()):
            expected = index.allowed_codes(sid).tolist() if states[row] >= 0 else []
            # Entries after the last child repeat the first one.
            assert np.unique(codes[row, valid[row]]).tolist() == expected


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dense", ["auto", "none", "all"])
def test_equals_the_index_on_random_catalogs(backend, dense):
    if backend != "numpy":
        pytest.importorskip(backend)

    # JAX compiles each shape.
    @settings(max_examples=4 if backend == "jax" else 100)
    @given(catalog=catalogs(), seed=st.integers(0, 2**32))
    def check(catalog, seed):
        assert_equals_index(catalog, backend, dense, seed)

    check()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [2**8, 2**16, 2**16 + 1, 2**31])
def test_codes_of_every_width(backend, size):
    if backend != "numpy":
        pytest.importorskip(backend)
    sids = [[size - 1, 0], [size - 1, size - 1], [size // 2, 5], [0, size - 2]]
    index = hr.build_index(hr.Catalog(sids, codebook_sizes=size), dense_levels=[])
    wanted = np.asarray([*sids, [size - 2, 0], [size - 1, 1]])
    assert walk(index.to(backend), backend, wanted, 2).tolist() == index.find(wanted).tolist()


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_index(backend):
    if backend != "numpy":
        pytest.importorskip(backend)
    index = hr.build_index(hr.Catalog(np.zeros((0, 2), int), codebook_sizes=(3, 40)))
    device_index = index.to(backend)
    assert walk(device_index, backend, np.asarray([[0, 0], [1, 2]]), 2).tolist() == [-1, -1]
    for level in device_index.levels:
        _, valid = allowed_children(device_index._ops, level, array_of(backend, np.asarray([0, -1], np.int32)))
        assert not to_numpy(valid).any()
