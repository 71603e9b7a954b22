"""Coverage and masked probability, against naive counting."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ragged import Ragged
from shown import random_requests, rules_of
from support import BACKENDS, FakeModel, array_of, catalogs

import hedgerow as hr
from hedgerow.decode.ops import to_numpy

SIDS = [[0, 0], [0, 0], [1, 0], [1, 1], [2, 1]]
IDS = ["a", "b", "c", "d", "e"]


def search(index, beam_width, **rules):
    return hr.beam_search(index, FakeModel(index.codebook_sizes), batch_size=2, beam_width=beam_width, **rules)


class TestCoverage:
    @pytest.fixture
    def index(self):
        return hr.build_index(hr.Catalog(SIDS, item_ids=IDS))

    def test_shares_items_and_dead_beams(self, index):
        coverage = hr.Coverage(index)
        assert (coverage.share(), coverage.items.to_pylist(), coverage.dead_beams) == (0.0, [], 0)
        subset = index.constraint(ids=["a", "b", "d"])
        beams = search(index, 3, constraints=[subset, None], exclude=[["b"], None])
        batch = index.results(beams, constraints=[subset, None], exclude=[["b"], None], k=2)
        coverage.add(batch, beams)
        coverage.add(batch[0])
        returned = {item for results in batch for item in results.item_ids}
        assert set(batch[0].item_ids) == {"a", "d"}
        assert set(coverage.items.to_pylist()) == returned
        assert coverage.num_returned == len(returned)
        assert coverage.share() == len(returned) / 5
        assert coverage.share(subset) == len(returned & {"a", "b", "d"}) / 3
        assert coverage.share(~subset) == len(returned & {"c", "e"}) / 2
        # The first request has three beams and only two allowed SIDs.
        assert (coverage.requests, coverage.beams, coverage.dead_beams) == (3, 6, 1)
        assert coverage.counts[index.item_ids.to_pylist().index("a")] >= 2
        assert repr(coverage).endswith("requests=3, dead_beams=1 of 6)")

    def test_share_of_no_items_is_nan(self, index):
        assert np.isnan(hr.Coverage(index).share(index.constraint(ids=[])))
        empty = hr.build_index(hr.Catalog(np.zeros((0, 2), int), codebook_sizes=3))
        assert np.isnan(hr.Coverage(empty).share())

    def test_rejects_results_and_beams_of_something_else(self, index):
        coverage = hr.Coverage(index)
        other = hr.build_index(hr.Catalog([*SIDS, [2, 2]], item_ids=[*IDS[::-1], "f"]))
        beams = search(other, 6)
        with pytest.raises(hr.ArgumentError, match="results are of another index"):
            coverage.add(other.results(beams))
        with pytest.raises(hr.ArgumentError, match="expected Results"):
            coverage.add([beams])  # pyright: ignore[reportArgumentType]
        with pytest.raises(hr.ArgumentError, match="expected Results, or a list of them; got int"):
            coverage.add(5)  # pyright: ignore[reportArgumentType]
        with pytest.raises(hr.ArgumentError, match="the Beams of these 1 requests; got 2 requests"):
            coverage.add(index.results(search(index, 2))[:1], search(index, 2))
        with pytest.raises(hr.ArgumentError, match="got int"):
            coverage.add(index.results(search(index, 2)), 3)  # pyright: ignore[reportArgumentType]
        with pytest.raises(hr.ConstraintError, match="a constraint set of the index of this Coverage"):
            coverage.share(other.constraint(ids=["f"]))
        with pytest.raises(hr.ArgumentError, match="a TrieIndex; got DeviceIndex"):
            hr.Coverage(index.to("numpy"))  # pyright: ignore[reportArgumentType]
        assert coverage.requests == 0


def naive_masked_probability(codes, state, logits, sids, allowed, normalize):
    """The probability of the codes that no allowed item's SID continues with."""
    if state < 0:
        return 0.0
    probabilities = np.exp(logits.astype(np.float64))
    if normalize is not None:
        probabilities /= probabilities.sum()
    level = len(codes)
    continues = allowed & (sids[:, :level] == codes).all(axis=1)
    probabilities[sids[continues, level]] = 0
    return probabilities.sum()


@pytest.mark.parametrize("backend", BACKENDS)
def test_masked_probability_equals_a_naive_sum(backend):
    pytest.importorskip(backend)

    @settings(max_examples=1 if backend == "jax" else 40)
    @given(
        catalog=catalogs(),
        dense=st.sampled_from(["auto", "all", "none"]),
        normalize=st.sampled_from(["codes", "allowed", None]),
        seed=st.integers(0, 2**32),
    )
    def check(catalog, dense, normalize, seed):
        levels = {"auto": "auto", "all": range(catalog.num_levels), "none": ()}[dense]
        index = hr.build_index(catalog, dense_levels=levels)
        requests = random_requests(np.random.default_rng(seed), catalog.num_items, 2)
        rules = rules_of(index, requests)
        device_index, model, steps = index.to(backend), FakeModel(catalog.codebook_sizes), []
        prepared = hr.prepare_constraints(device_index, 2, **rules)

        def recording_model(beams):
            logits = model(beams)
            if normalize is None:
                logits = logits - 8
            array = array_of(backend, logits)
            masked = hr.masked_probability(device_index, beams, array, normalize=normalize, constraints=prepared)
            steps.append((beams, logits, to_numpy(masked)))
            return array

        options = {"batch_size": 2, "beam_width": 7, "normalize": normalize, "constraints": prepared}
        hr.beam_search(device_index, recording_model, **options)
        for beams, logits, masked in steps:
            codes, states = to_numpy(beams.codes), to_numpy(beams.states)
            for b, m in np.ndindex(states.shape):
                allowed = requests[b].allowed(catalog.num_items)
                expected = naive_masked_probability(
                    codes[b, m], states[b, m], logits[b, m], catalog.sids, allowed, normalize
                )
                assert masked[b, m] == pytest.approx(min(expected, 1), abs=1e-5)

    check()


def test_ended_beams_have_no_masked_probability():
    ragged = Ragged([(3,), (3, 1), (0, 2), (0, 2, 0)], (4, 3, 5))
    index = hr.build_index(ragged.catalog)
    beams = hr.init_beams(index, 1)
    for size in index.codebook_sizes[:2]:
        beams = hr.step(index, beams, np.zeros((1, beams.states.shape[1], size)), beam_width=9)
    masked = hr.masked_probability(index, beams, np.zeros((1, 9, index.codebook_sizes[2])))[0]
    ended = beams.codes[0, :, -1] == index.end_codes[1]
    assert ended.any()
    assert (masked[ended] == 0).all()
    # Level 2 has five codes and the end code: (0, 2) can continue with 0 or end, (3, 1) can only end.
    live = (beams.states[0] >= 0) & ~ended
    assert sorted(masked[live].tolist()) == pytest.approx([4 / 6, 5 / 6])


def test_logits_without_probability():
    index = hr.build_index(hr.Catalog(SIDS, item_ids=IDS))
    assert hr.masked_probability(index, hr.init_beams(index, 1), np.full((1, 1, 3), -np.inf)).tolist() == [[0]]


def test_masked_probability_rejects_other_shapes():
    index = hr.build_index(hr.Catalog(SIDS, item_ids=IDS))
    with pytest.raises(hr.ArgumentError, match="logits of level 0 must be"):
        hr.masked_probability(index, hr.init_beams(index, 1), np.zeros((1, 1, 4)))
