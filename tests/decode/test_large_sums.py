"""Normalizers over many codes: float32 sums of many equal terms would drift."""

import math

import numpy as np
import pytest
from support import require

import hedgerow as hr

CODES = 2**18
# Every addition to a float32 sum of such terms is rounded in the same direction.
LOGIT = -6.305084705352783


@pytest.mark.parametrize("kernel", ["array", "native"])
@pytest.mark.parametrize("normalize", ["codes", "allowed"])
def test_scores_are_exact(kernel, normalize):
    require(f"numpy-{kernel}")
    logits = np.full((1, 1, CODES), LOGIT, np.float32)
    logits[..., 0] = 0
    index = hr.build_index(hr.Catalog(np.arange(CODES)[:, None], codebook_sizes=CODES))
    beams = hr.step(index, hr.init_beams(index, 1), logits, beam_width=1, normalize=normalize, kernel=kernel)
    assert beams.scores[0, 0] == pytest.approx(-math.log(1 + (CODES - 1) * math.exp(LOGIT)), abs=2e-6)


def test_codes_beyond_a_multiple_of_the_vectors():
    require("numpy-native")
    for size in (1, 15, 16, 17, 511, 512, 513, 527, 1024, 1041):
        logits = np.random.default_rng(size).normal(size=(1, 1, size)).astype(np.float32)
        index = hr.build_index(hr.Catalog(np.arange(size)[:, None], codebook_sizes=size))
        beams = hr.step(index, hr.init_beams(index, 1), logits, beam_width=1, kernel="native")
        exact = logits.astype(np.float64).max() - np.log(np.exp(logits.astype(np.float64)).sum())
        assert beams.scores[0, 0] == pytest.approx(exact, abs=1e-6)
