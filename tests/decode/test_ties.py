"""Equal scores: every kernel keeps and returns the smaller SIDs, as the oracle does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ragged import Ragged, logits_and_end
from support import KERNELS, FakeModel, catalogs, dense_levels_of, require, search

import hedgerow as hr
from hedgerow.decode.ops import to_numpy
from hedgerow.decode.oracle import oracle_search

pytestmark = pytest.mark.usefixtures("layout")


class CoarseModel(FakeModel):
    """Logits of 0 and 1, or of 0 alone: their sums are exact in float32, so many SIDs have exactly equal scores."""

    highest = 1

    def _logits(self, request, prefix):
        key = (request, *prefix)
        if key not in self.cache:
            rng = np.random.default_rng((self.seed, *key))
            self.cache[key] = rng.integers(0, self.highest + 1, self.sizes[len(prefix)]).astype(np.float32)
        return self.cache[key]


def assert_equals_oracle(catalog, kernel, beam_width, *, dense="auto", highest=1):
    """Assert that a search returns the SIDs of the oracle, in its order."""
    index = hr.build_index(catalog, dense_levels=dense_levels_of(dense, catalog.num_levels))
    model = CoarseModel(catalog.codebook_sizes)
    model.highest = highest
    beams = search(index, kernel, model, batch_size=2, beam_width=beam_width, normalize=None)
    sids = [tuple(sid) for sid in catalog.sids.tolist()]
    for request in range(2):
        expected = oracle_search(sids, model.logits_of(request), catalog.num_levels, beam_width, None)
        found = to_numpy(beams.codes)[request, : len(expected)].tolist()
        assert [tuple(sid) for sid in found] == [sid for sid, _ in expected]


@pytest.mark.parametrize("kernel", KERNELS)
def test_equals_the_oracle(kernel):
    require(kernel)

    # JAX compiles each shape, so it runs on fewer examples.
    @settings(max_examples=5 if kernel.startswith("jax") else 100)
    @given(
        catalog=catalogs(),
        beam_width=st.sampled_from([1, 2, 5, 17, 70]),
        dense=st.sampled_from(["auto", "all", "none"]),
        highest=st.sampled_from([0, 1]),
    )
    def check(catalog, beam_width, dense, highest):
        assert_equals_oracle(catalog, kernel, beam_width, dense=dense, highest=highest)

    check()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dense", ["all", "none"])
def test_more_ties_than_a_selection_ranks_at_once(kernel, dense):
    """Long rows, which kernels select from in several blocks."""
    require(kernel)
    catalog = hr.Catalog(np.random.default_rng(0).integers(0, 900, (4000, 2)), codebook_sizes=900)
    assert_equals_oracle(catalog, kernel, 40, dense=dense, highest=0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_sid_follows_the_sids_that_continue_it(kernel):
    require(kernel)
    items = Ragged([(2,), (1,), (1, 2), (1, 2, 3), (1, 0)], (4, 4, 4))
    model = CoarseModel(items.catalog.codebook_sizes)
    model.highest = 0
    beams = search(hr.build_index(items.catalog), kernel, model, batch_size=1, beam_width=5, normalize=None)
    logits_of, end_logit_of = logits_and_end(model.logits_of(0))
    expected = oracle_search(items.sids, logits_of, 3, 5, None, end_logit_of=end_logit_of)
    assert [sid for sid, _ in expected] == [(1, 0), (1, 2, 3), (1, 2), (1,), (2,)]
    assert to_numpy(beams.codes)[0].tolist() == [list(items.as_codes(sid)) for sid, _ in expected]
