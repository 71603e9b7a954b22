"""Constraints in the Triton kernels, in Triton's interpreter, which needs its own process."""

from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter import INTERPRETED, assert_passes_interpreted
from shown import Request, assert_finds_allowed_items, random_requests
from support import catalogs, dense_levels_of
from test_triton import SLOW

import hedgerow as hr

KERNEL = "torch-triton"

pytestmark = pytest.mark.skipif(
    not (find_spec("torch") and find_spec("triton")), reason="PyTorch or Triton is not installed"
)


@SLOW
@pytest.mark.skipif(INTERPRETED, reason="this is the process of the interpreter")
def test_in_the_interpreter():
    assert_passes_interpreted(f"{__file__}::TestInterpreted")


class TestInterpreted:
    __test__ = INTERPRETED

    @pytest.fixture(params=["as shipped", "sieved", "sieved, small", "listed, small"], autouse=True)
    def _form(self, request):
        from test_triton import FORMS, numbers

        with numbers(**FORMS[request.param]):
            yield

    def test_equals_the_oracle_on_random_catalogs(self):
        @settings(max_examples=3)
        @given(
            catalog=catalogs(),
            batch=st.integers(1, 3),
            beam_width=st.sampled_from([1, 2, 7, 20]),
            normalize=st.sampled_from(["codes", "allowed", None]),
            dense=st.sampled_from(["auto", "all", "none"]),
            seed=st.integers(0, 2**32),
        )
        def check(catalog, batch, beam_width, normalize, dense, seed):
            levels = dense_levels_of(dense, catalog.num_levels)
            requests = random_requests(np.random.default_rng(seed), catalog.num_items, batch)
            assert_finds_allowed_items(catalog, KERNEL, requests, beam_width, dense_levels=levels, normalize=normalize)

        check()

    def test_node_with_most_children_excluded(self):
        rng = np.random.default_rng(1)
        sids = np.stack([rng.integers(0, 3, 400), rng.integers(0, 130, 400), rng.integers(0, 40, 400)], axis=1)
        requests = [Request(None, rng.permutation(400)[:150]), Request(rng.random(400) < 0.2, np.arange(100))]
        catalog = hr.Catalog(sids, codebook_sizes=(3, 130, 40))
        assert_finds_allowed_items(catalog, KERNEL, requests, 8, normalize="allowed")
