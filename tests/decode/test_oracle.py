"""The oracle, against results that were computed by hand."""

import math

import pytest

from hedgerow.decode.oracle import oracle_search, oracle_step

SIDS = [(0, 1), (0, 1), (2, 0), (2, 2)]
LOG_THIRD = math.log(1 / 3)


def test_keeps_the_best_allowed_codes():
    logits = {(): [0.0, 9.0, 1.0], (0,): [0.0, 0.0, 0.0], (2,): [3.0, 0.0, 1.0]}
    found = oracle_search(SIDS, logits.__getitem__, 2, 2, normalize=None)
    assert found == [((2, 0), 4.0), ((2, 2), 2.0)]


def test_a_narrow_beam_loses_the_best_sid():
    """(0, 1) has the best score, but with one beam its prefix is dropped at level 0."""
    logits = {(): [0.0, 0.0, 1.0], (0,): [0.0, 9.0, 0.0], (2,): [0.0, 0.0, 1.0]}
    assert oracle_search(SIDS, logits.__getitem__, 2, 1, normalize=None) == [((2, 2), 2.0)]
    assert oracle_search(SIDS, logits.__getitem__, 2, 2, normalize=None)[0] == ((0, 1), 9.0)


def test_normalizers():
    def zeros(_prefix):
        return [0.0, 0.0, 0.0]

    over_codes = oracle_step(SIDS, [((), 0.0)], zeros, 5, "codes")
    assert [score for _, score in over_codes] == pytest.approx([LOG_THIRD, LOG_THIRD])
    over_allowed = oracle_step(SIDS, [((), 0.0)], zeros, 5, "allowed")
    assert [score for _, score in over_allowed] == pytest.approx([math.log(1 / 2)] * 2)


def test_banned_codes_and_no_beams():
    assert oracle_step(SIDS, [((), 0.0)], lambda _: [-math.inf, 5.0, math.nan], 5) == []
    assert oracle_step(SIDS, [], lambda _: [0.0], 5) == []
