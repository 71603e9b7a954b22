"""The operations of each backend."""

import numpy as np
import pytest
from support import BACKENDS, array_of

from hedgerow.decode.ops import CHUNK, TWO_STAGE_FROM, ops_of, to_numpy


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
    values, positions = map(to_numpy, ops_of(backend).top_k(array_of(backend, x), k))
    np.testing.assert_array_equal(values, -np.sort(-x, axis=1)[:, :k])
    np.testing.assert_array_equal(np.take_along_axis(x, positions.astype(np.int64), axis=1), values)
    assert all(len(set(row)) == k for row in positions.tolist())


def test_popcount(backend):
    words = np.asarray([0, 1, -1, -(2**31), 2**31 - 1, 0x55555555, 0x0F0F0F0F, 12345678], np.int32)
    counts = to_numpy(ops_of(backend).popcount(array_of(backend, words)))
    assert counts.tolist() == [bin(int(word) & 0xFFFFFFFF).count("1") for word in words]
