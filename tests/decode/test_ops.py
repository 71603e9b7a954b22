"""The operations of each backend."""

import numpy as np
import pytest
from support import BACKENDS, array_of

from hedgerow.decode.ops import BLOCKS, CHUNK, JAX_BLOCKS, ops_of, to_numpy

TWO_STAGE_FROM = BLOCKS[0][0]


@pytest.fixture(params=BACKENDS)
def backend(request):
    pytest.importorskip(request.param)
    return request.param


@pytest.mark.parametrize(
    ("n", "k"),
    [
        (1, 1),
        (63, 63),
        (2049, 5),
        (TWO_STAGE_FROM, 1),
        (TWO_STAGE_FROM, 70),
        (TWO_STAGE_FROM + CHUNK, 512),
        (TWO_STAGE_FROM + 1, 70),
        (TWO_STAGE_FROM, TWO_STAGE_FROM // CHUNK),
        (JAX_BLOCKS[0][0], 70),
        (JAX_BLOCKS[-1][0], 70),
    ],
)
@pytest.mark.parametrize("kind", ["normal", "ties", "mostly dead"])
def test_top_k_is_exact(backend, n, k, kind):
    rng = np.random.default_rng(n + k)
    x = rng.normal(size=(2, n)).astype(np.float32)
    if kind == "ties":
        x = np.round(x)
    elif kind == "mostly dead":
        x[rng.random(x.shape) < 0.999] = -np.inf
    first = np.zeros((2, 1), np.int32)
    values, positions = ops_of(backend).top_k(array_of(backend, x[:, None]), array_of(backend, first), k)
    expected = np.argsort(-x, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(x, expected, axis=1)
    # Dead candidates have no order.
    live = best > -np.inf
    np.testing.assert_array_equal(to_numpy(positions)[live], expected[live])
    np.testing.assert_array_equal(to_numpy(values), best)


@pytest.mark.parametrize(("rows", "n", "k"), [(3, 5, 7), (70, CHUNK, 70), (70, 2048, 70), (70, 512, 70), (2, 7, 14)])
def test_equal_values_come_in_the_order_of_their_places(backend, rows, n, k):
    rng = np.random.default_rng(n)
    x = np.round(rng.normal(size=(2, rows, n))).astype(np.float32)
    order = np.stack([rng.permutation(rows) for _ in range(2)])
    first = (order * (n + 3)).astype(np.int32)
    values, positions = ops_of(backend).top_k(array_of(backend, x), array_of(backend, first), k)
    places = (first[..., None] + np.arange(n)).reshape(2, -1)
    expected = np.stack([np.lexsort(keys)[:k] for keys in zip(places, -x.reshape(2, -1), strict=True)])
    np.testing.assert_array_equal(to_numpy(positions), expected)
    np.testing.assert_array_equal(to_numpy(values), np.take_along_axis(x.reshape(2, -1), expected, axis=1))


def test_popcount(backend):
    words = np.asarray([0, 1, -1, -(2**31), 2**31 - 1, 0x55555555, 0x0F0F0F0F, 12345678], np.int32)
    counts = to_numpy(ops_of(backend).popcount(array_of(backend, words)))
    assert counts.tolist() == [bin(int(word) & 0xFFFFFFFF).count("1") for word in words]


@pytest.mark.parametrize("size", [0, 1, 2, 15, 16, 17, 288, 289, 4912, 4913, 100_000])
def test_rank(backend, size):
    rng = np.random.default_rng(size)
    ascending = np.sort(rng.integers(0, size + 3, size)).astype(np.int32)
    values = rng.integers(-2, size + 5, (2, 3, 40)).astype(np.int32)
    ranks = to_numpy(ops_of(backend).rank(array_of(backend, ascending), array_of(backend, values)))
    assert ranks.dtype == np.int32
    np.testing.assert_array_equal(ranks, np.searchsorted(ascending, values))
