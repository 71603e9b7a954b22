"""The ways in which JAX takes fewer passes on a CPU give the results of the array API."""

import numpy as np
import pytest
from support import array_of

import hedgerow as hr
from hedgerow.decode.kernels.array import bounded
from hedgerow.decode.ops import ops_of

jax = pytest.importorskip("jax")

INF = float("inf")
SPECIAL = (np.nan, INF, -INF, 3e38, -3e38, 1e30, -1e30, 200.0, -200.0)


def scores_of(logits, beam_width=6, normalize="codes"):
    """The scores [B, M] of a step from the root, of all codes."""
    logits = np.asarray(logits)
    index = hr.build_index(hr.Catalog(np.arange(logits.shape[-1])[:, None])).to("jax")
    beams = hr.init_beams(index, len(logits))
    step = jax.jit(hr.step, static_argnames=("beam_width", "normalize"))
    return step(index, beams, array_of("jax", logits)[:, None], beam_width=beam_width, normalize=normalize).scores


@pytest.mark.parametrize("size", [1, 7, 16, 33, 129, 2049])
def test_a_special_logit_in_any_column_counts_as_bounded(size):
    """Each row has one special logit, and no two rows have it in the same column. A last row has nothing else."""
    from hedgerow.decode.kernels.array import StepInput, _log_sums

    ops, rng = ops_of("jax"), np.random.default_rng(size)

    @jax.jit
    def log_sums(logits):
        return _log_sums(StepInput(ops, None, None, logits, 1, "codes", None))  # pyright: ignore[reportArgumentType]

    for special in SPECIAL:
        logits = rng.normal(size=(1, size + 1, size)).astype(np.float32)
        logits[0, np.arange(size), np.arange(size)] = special
        logits[0, size] = special
        wide = np.asarray(bounded(ops, array_of("jax", logits)), np.float64)
        highest = wide.max(-1, keepdims=True)
        shift = np.where(highest > -INF, highest, 0.0)
        total = np.exp(wide - shift).sum(-1, keepdims=True)
        found_shift, found = (np.asarray(x, np.float64) for x in log_sums(array_of("jax", logits)))
        expected = shift + np.log(np.where(total > 0, total, 1.0))
        np.testing.assert_allclose(found_shift + found, expected, rtol=2e-6, atol=2e-6)


def test_a_row_does_not_depend_on_other_rows():
    """A special logit of one request changes no bit of the scores of another."""
    logits = np.random.default_rng(0).normal(size=(2, 50)).astype(np.float32)
    alone = np.asarray(scores_of(logits))
    logits[1, 3] = np.nan
    beside = np.asarray(scores_of(logits))
    np.testing.assert_array_equal(alone[0], beside[0])
    assert (alone[1] != beside[1]).any()


@pytest.mark.parametrize("size", [64 * 32, 64 * 32 - 1, 70 * 2048, 2**18])
@pytest.mark.parametrize("share", [1.0, 0.1, 0.0001])
def test_top_k_of_groups(size, share):
    """The values are the best, and their positions are right. A part of the values is finite, and many are equal."""
    from hedgerow.decode import jax_ops

    rng = np.random.default_rng(size)
    for values in (rng.permutation(2 * size).reshape(2, size), rng.integers(0, 9, (2, size))):
        x = np.where(rng.random((2, size)) < share, values, -INF).astype(np.float32)
        for k in (1, 31, 71):
            found, positions = map(np.asarray, jax.jit(jax_ops._top_k, static_argnums=1)(array_of("jax", x), k))
            np.testing.assert_array_equal(found, -np.sort(-x, axis=1)[:, :k])
            np.testing.assert_array_equal(np.take_along_axis(x, positions, 1), found)
            assert all(len(np.unique(row)) == k for row in positions)


@pytest.mark.parametrize("shift", [0.0, 60.0, -60.0, 1e4, -1e4])
def test_large_logits(shift):
    logits = np.random.default_rng(1).normal(size=(2, 300)).astype(np.float32)
    # Exact in float32, so that both have the same differences.
    logits = np.round(logits * 64) / 64
    np.testing.assert_allclose(scores_of(logits + np.float32(shift)), scores_of(logits), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("special", [None, np.nan, INF, -INF])
def test_gradients(special):
    """The gradient of the sum of all scores: 1 less the number of codes times the probability of the code."""
    logits = np.random.default_rng(2).normal(size=(2, 9)).astype(np.float32)
    if special is not None:
        logits[0, 4] = special
    gradient = np.asarray(jax.grad(lambda x: _finite_sum(_scores(x)))(array_of("jax", logits)))
    assert np.isfinite(gradient).all()
    probability = np.exp(logits[1]) / np.exp(logits[1]).sum()
    np.testing.assert_allclose(gradient[1], 1 - 9 * probability, rtol=1e-4, atol=1e-5)


def _scores(logits):
    index = hr.build_index(hr.Catalog(np.arange(9)[:, None])).to("jax")
    return hr.step(index, hr.init_beams(index, 2), logits[:, None], beam_width=9).scores


def _finite_sum(scores):
    return jax.numpy.sum(jax.numpy.where(scores > -INF, scores, 0.0))


@pytest.mark.parametrize("tied", [False, True])
def test_equal_scores_of_several_beams_go_by_sid(tied):
    """With and without ties: the first M candidates of two requests, of which one has ties."""
    rng = np.random.default_rng(3)
    catalog = hr.Catalog(rng.integers(0, 40, (800, 2)), codebook_sizes=40)
    index = hr.build_index(catalog, dense_levels=())
    results = {}
    first, second = (rng.normal(size=(2, m, 40)).astype(np.float32) for m in (1, 10))
    if tied:
        second[1] = np.round(second[1])
    for backend in ("numpy", "jax"):
        on_device = index.to(backend)
        beams = hr.init_beams(on_device, 2)
        for logits in (first, second):
            beams = hr.step(on_device, beams, array_of(backend, logits), beam_width=10, normalize=None, kernel="array")
        results[backend] = np.asarray(beams.codes)
    np.testing.assert_array_equal(results["jax"], results["numpy"])
