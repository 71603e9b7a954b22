"""The contract of constraints: every kernel against the oracle, and against an index of the subset alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shown import Request, assert_finds_allowed_items, random_requests
from support import KERNELS, catalogs, dense_levels_of, require

import hedgerow as hr
from hedgerow.decode.ops import to_numpy

pytestmark = pytest.mark.usefixtures("layout")


@pytest.mark.parametrize("kernel", KERNELS)
def test_equals_the_oracle_on_random_catalogs(kernel):
    require(kernel)

    # JAX compiles each shape, so it runs on fewer examples.
    @settings(max_examples=5 if kernel.startswith("jax") else 60)
    @given(
        catalog=catalogs(),
        batch=st.integers(1, 4),
        beam_width=st.sampled_from([1, 2, 7, 70]),
        normalize=st.sampled_from(["codes", "allowed", None]),
        dense=st.sampled_from(["auto", "all", "none"]),
        seed=st.integers(0, 2**32),
    )
    def check(catalog, batch, beam_width, normalize, dense, seed):
        levels = dense_levels_of(dense, catalog.num_levels)
        requests = random_requests(np.random.default_rng(seed), catalog.num_items, batch)
        assert_finds_allowed_items(catalog, kernel, requests, beam_width, dense_levels=levels, normalize=normalize)

    check()


@pytest.mark.parametrize("kernel", KERNELS)
def test_equals_the_oracle_on_real_catalogs(kernel, real_catalog):
    require(kernel)
    rng, items = np.random.default_rng(0), real_catalog.num_items
    few = rng.random(items) < 0.02
    requests = [
        Request(few, None),
        Request(None, rng.permutation(items)[:1000]),
        Request(None, None),
        Request(few, np.flatnonzero(few)[::2]),
        Request(np.zeros(items, bool), None),
    ]
    assert_finds_allowed_items(real_catalog, kernel, requests, 70)


@pytest.mark.parametrize("kernel", KERNELS)
class TestEdges:
    @pytest.fixture(autouse=True)
    def _kernel(self, kernel):
        require(kernel)

    def test_an_empty_set_does_not_affect_other_requests(self, kernel):
        catalog = hr.Catalog(np.random.default_rng(0).integers(0, 6, (40, 3)), codebook_sizes=6)
        requests = [Request(None, None), Request(np.zeros(40, bool), None), Request(np.ones(40, bool), None)]
        beams = assert_finds_allowed_items(catalog, kernel, requests, 7)
        assert to_numpy(beams.num_valid).tolist() == [7, 0, 7]

    def test_all_items_excluded(self, kernel):
        catalog = hr.Catalog([[0, 1], [0, 2], [3, 3]], codebook_sizes=4)
        beams = assert_finds_allowed_items(catalog, kernel, [Request(None, np.arange(3)), Request(None, None)], 5)
        assert to_numpy(beams.num_valid).tolist() == [0, 3]

    @pytest.mark.parametrize("dense_levels", [(), (0, 1)])
    def test_a_shared_sid_stays_allowed_while_an_item_is_left(self, kernel, dense_levels):
        catalog = hr.Catalog([[1, 1], [1, 1], [1, 1], [2, 0]], codebook_sizes=3)
        masks = np.asarray([True, True, False, True]), np.asarray([False, True, False, False])
        requests = [
            Request(None, np.asarray([0, 1])),
            Request(masks[0], np.asarray([0, 1])),
            Request(masks[0], np.asarray([1, 2])),
            Request(masks[1], np.asarray([0, 2])),
            Request(masks[1], np.asarray([1])),
        ]
        beams = assert_finds_allowed_items(catalog, kernel, requests, 3, dense_levels=dense_levels)
        assert to_numpy(beams.num_valid).tolist() == [2, 1, 2, 1, 0]

    @pytest.mark.parametrize("normalize", ["codes", "allowed"])
    def test_node_with_most_children_excluded(self, kernel, normalize):
        rng = np.random.default_rng(1)
        sids = np.stack([rng.integers(0, 3, 3000), rng.integers(0, 700, 3000), rng.integers(0, 40, 3000)], axis=1)
        catalog = hr.Catalog(sids, codebook_sizes=(3, 700, 40))
        requests = [Request(None, rng.permutation(3000)[:1000]), Request(rng.random(3000) < 0.1, np.arange(900))]
        assert_finds_allowed_items(catalog, kernel, requests, 30, normalize=normalize)

    @pytest.mark.parametrize("dense_levels", [(), (0, 1)])
    def test_empty_index(self, kernel, dense_levels):
        catalog = hr.Catalog(np.zeros((0, 2), int), codebook_sizes=(3, 40))
        requests = [Request(np.zeros(0, bool), None), Request(None, np.zeros(0, int))]
        beams = assert_finds_allowed_items(catalog, kernel, requests, 3, dense_levels=dense_levels)
        assert to_numpy(beams.num_valid).tolist() == [0, 0]
