"""The fan-out of a level: which children belong to which parents."""

import numpy as np

from hedgerow.index.fanout import fan_out, parents_of


def test_parents_of_few_and_of_many_children_of_forked_parents():
    rng = np.random.default_rng(0)
    is_first = rng.random(20_000) > 0.1
    is_first[0] = True
    expected = np.cumsum(is_first) - 1
    start, forks, _ = fan_out(is_first, int(is_first.sum()))
    assert start is None
    assert forks is not None
    every_child = np.arange(len(is_first))
    assert parents_of(start, forks, every_child).tolist() == expected.tolist()
    for few in (every_child[:5], every_child[-5:], rng.integers(0, len(is_first), 9), every_child[:0]):
        assert parents_of(start, forks, few).tolist() == expected[few].tolist()
