"""The contract of a search: every kernel against the oracle, on random and on real catalogs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import KERNELS, FakeModel, catalogs, dense_levels_of, require, search

import hedgerow as hr
from hedgerow.decode.beams import DEAD
from hedgerow.decode.ops import to_numpy
from hedgerow.decode.oracle import oracle_search

pytestmark = pytest.mark.usefixtures("layout")


def assert_equals_oracle(catalog: hr.Catalog, kernel: str, batch_size: int, beam_width: int, **options) -> hr.Beams:
    """Assert that a search equals the oracle, request by request, and that its dead beams are last."""
    index = hr.build_index(catalog, dense_levels=options.pop("dense_levels", "auto"))
    model = FakeModel(catalog.codebook_sizes)
    beams = search(index, kernel, model, batch_size=batch_size, beam_width=beam_width, **options)
    codes, scores, states, parents = (to_numpy(x) for x in (beams.codes, beams.scores, beams.states, beams.parents))
    assert codes.shape == (batch_size, beam_width, catalog.num_levels)
    assert (codes.dtype, scores.dtype, states.dtype, parents.dtype) == (np.int32, np.float32, np.int32, np.int32)
    sids = [tuple(sid) for sid in catalog.sids.tolist()]
    for request in range(batch_size):
        expected = oracle_search(
            sids, model.logits_of(request), catalog.num_levels, beam_width, options.get("normalize", "codes")
        )
        live = len(expected)
        assert to_numpy(beams.num_valid)[request] == live
        np.testing.assert_allclose(scores[request, :live], [score for _, score in expected], rtol=1e-5, atol=1e-5)
        assert (np.diff(scores[request, :live]) <= 0).all()
        sids_found = [tuple(sid) for sid in codes[request, :live].tolist()]
        assert sorted(sids_found) == sorted(sid for sid, _ in expected)
        assert index.contains(codes[request, :live]).all()
        assert (index.find(codes[request, :live]) == states[request, :live]).all()
        assert (codes[request, live:] == DEAD).all()
        assert (states[request, live:] == DEAD).all()
        assert (scores[request, live:] == -np.inf).all()
        assert (parents[request, live:] == 0).all()
    return beams


@pytest.mark.parametrize("kernel", KERNELS)
def test_equals_the_oracle_on_random_catalogs(kernel):
    require(kernel)

    # JAX compiles each shape, so it runs on fewer examples.
    @settings(max_examples=10 if kernel.startswith("jax") else 300)
    @given(
        catalog=catalogs(),
        batch_size=st.integers(1, 3),
        beam_width=st.sampled_from([1, 2, 5, 7, 70, 300]),
        normalize=st.sampled_from(["codes", "allowed", None]),
        dense=st.sampled_from(["auto", "all", "none"]),
    )
    def check(catalog, batch_size, beam_width, normalize, dense):
        levels = dense_levels_of(dense, catalog.num_levels)
        assert_equals_oracle(catalog, kernel, batch_size, beam_width, normalize=normalize, dense_levels=levels)

    check()


@pytest.mark.parametrize("kernel", KERNELS)
def test_equals_the_oracle_on_real_catalogs(kernel, real_catalog, layout):
    require(kernel)
    representations = {level.representation for level in hr.build_index(real_catalog).levels}
    assert representations >= {"dense", "sparse" if layout == "plain" else "elias-fano"}
    assert_equals_oracle(real_catalog, kernel, batch_size=4, beam_width=70)


@pytest.mark.parametrize("kernel", KERNELS)
class TestEdges:
    @pytest.fixture(autouse=True)
    def _kernel(self, kernel):
        require(kernel)

    def test_three_items_and_five_beams(self, kernel):
        catalog = hr.Catalog([[4, 1], [4, 3], [0, 1]], codebook_sizes=8)
        beams = assert_equals_oracle(catalog, kernel, batch_size=2, beam_width=5)
        assert to_numpy(beams.num_valid).tolist() == [3, 3]

    @pytest.mark.parametrize("dense_levels", [(), range(2)])
    def test_1000_beams_over_a_codebook_of_8(self, kernel, dense_levels):
        catalog = hr.Catalog(np.random.default_rng(0).integers(0, 8, (100, 2)), codebook_sizes=8)
        assert_equals_oracle(catalog, kernel, batch_size=1, beam_width=1000, dense_levels=dense_levels)

    def test_one_item(self, kernel):
        assert_equals_oracle(hr.Catalog([[3, 0, 7]], codebook_sizes=8), kernel, batch_size=2, beam_width=3)

    def test_one_level(self, kernel):
        catalog = hr.Catalog([[5], [2], [5], [6]], codebook_sizes=7)
        assert_equals_oracle(catalog, kernel, batch_size=2, beam_width=2)

    def test_codebooks_of_one(self, kernel):
        assert_equals_oracle(hr.Catalog([[0, 0, 0]] * 3), kernel, batch_size=1, beam_width=2)

    @pytest.mark.parametrize("normalize", ["codes", "allowed", None])
    def test_empty_catalog(self, kernel, normalize):
        catalog = hr.Catalog(np.zeros((0, 2), int), codebook_sizes=(3, 40))
        beams = assert_equals_oracle(catalog, kernel, batch_size=2, beam_width=3, normalize=normalize)
        assert to_numpy(beams.num_valid).tolist() == [0, 0]

    def test_wide_codebook_and_node_with_most_items(self, kernel):
        rng = np.random.default_rng(1)
        sids = rng.integers(0, 70_000, (300, 2))
        sids[:200, 0] = 69_999
        catalog = hr.Catalog(sids, codebook_sizes=70_000)
        beams = assert_equals_oracle(catalog, kernel, batch_size=1, beam_width=20)
        assert (to_numpy(beams.codes) > 2**16).any()

    def test_codebook_of_exactly_16_bits(self, kernel):
        sids = np.asarray([[65_535, 40_000], [65_535, 1], [0, 65_535]])
        assert_equals_oracle(hr.Catalog(sids), kernel, batch_size=1, beam_width=4)

    def test_255_levels(self, kernel):
        sids = np.random.default_rng(2).integers(0, 2, (5, 255))
        if kernel.startswith("jax"):
            # JAX compiles once per level.
            sids = sids[:, :12]
        assert_equals_oracle(hr.Catalog(sids, codebook_sizes=2), kernel, batch_size=1, beam_width=4)
