"""The C kernel against the array kernel: the code of every processor, and logits of unusual sizes."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import require

import hedgerow as hr
from hedgerow._compiled import native

WIDTHS = (1, 31, 32, 33, 65, 513, 2048, 2049)


@pytest.fixture(params=[0, 3, 4], ids=["any", "v3", "v4"])
def rows(request):
    """The code of rows for a version of x86-64."""
    require("numpy-native")
    if native.choose_rows(request.param) != request.param:
        native.choose_rows(4)
        pytest.skip("this processor does not have these instructions")
    yield
    native.choose_rows(4)


def logits_of(rng, shape, kind):
    logits = rng.normal(size=shape).astype(np.float32) * kind["scale"] + np.float32(kind["offset"])
    for value, share in ((kind["special"], 0.05), (-np.inf, kind["banned"])):
        logits[rng.random(shape) < share] = value
    return logits


kinds = st.fixed_dictionaries(
    {
        "scale": st.sampled_from([0.01, 1.0, 20.0]),
        "offset": st.sampled_from([0.0, 63.9, -64.1, 90.0, -200.0, 1e30]),
        "special": st.sampled_from([0.0, np.nan, np.inf, 3e38, -3e38]),
        "banned": st.sampled_from([0.0, 0.3, 1.0]),
    }
)


@pytest.mark.usefixtures("rows")
@given(st.integers(0, 2**32 - 1), st.sampled_from(WIDTHS), st.sampled_from(["codes", "allowed", None]), kinds)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_scores_equal_those_of_the_array_kernel(seed, size, normalize, kind):
    rng = np.random.default_rng(seed)
    num_items = int(rng.choice([1, 40, 3000]))
    # Few first codes give nodes with many children, which are found by words of codes.
    sids = np.stack([rng.integers(0, min(size, 4), num_items), rng.integers(0, size, num_items)], axis=1)
    index = hr.build_index(hr.Catalog(sids, codebook_sizes=size))
    some = index.constraint(rng.random(num_items) < 0.5, order="index")
    banned = rng.integers(0, num_items, 3).tolist()
    prepared = hr.prepare_constraints(index.to("numpy"), 2, constraints=[some, None], exclude=[None, banned])
    beams = hr.init_beams(index, 2)
    for _ in range(2):
        arguments = index, beams, logits_of(rng, (*beams.states.shape, size), kind)
        options = {"beam_width": 20, "normalize": normalize, "constraints": prepared}
        found = hr.step(*arguments, **options, kernel="native")
        beams = hr.step(*arguments, **options, kernel="array")
        np.testing.assert_allclose(found.scores, beams.scores, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("dense", [True, False])
def test_nodes_with_many_children(dense):
    rng = np.random.default_rng(5)
    sids = np.unique(np.stack([rng.integers(0, 4, 3000), rng.integers(0, 2048, 3000)], axis=1), axis=0)
    index = hr.build_index(hr.Catalog(sids, codebook_sizes=[4, 2048]), dense_levels=[1] if dense else [])
    beams = hr.step(index, hr.init_beams(index, 1), rng.normal(size=(1, 1, 4)), beam_width=4)
    logits = rng.normal(size=(1, 4, 2048)).astype(np.float32)
    options = {"beam_width": 70, "exclude": [list(range(0, 3000, 7))]}
    found = hr.step(index, beams, logits, kernel="native", **options)
    expected = hr.step(index, beams, logits, kernel="array", **options)
    assert np.array_equal(found.states, expected.states)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-6)
