"""The results of every method are what it promises, on small catalogs of every kind and on every backend."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import BACKENDS, catalogs

import hedgerow as hr
from hedgerow.bench.arrays import arrays_of
from hedgerow.bench.baselines.base import Baseline, Problem, Promise, SearchResult, Unavailable
from hedgerow.bench.baselines.cpu_trie import CpuTrie
from hedgerow.bench.baselines.hash_bitmap import HashBitmap
from hedgerow.bench.baselines.ours import Hedgerow
from hedgerow.bench.baselines.ppv import PpvApproximate, PpvCarried, PpvExact
from hedgerow.bench.baselines.static_published import StaticPublished
from hedgerow.bench.baselines.unconstrained import Unconstrained
from hedgerow.bench.cases import COLD, Case, logits_after, logits_of, sids_of
from hedgerow.bench.entries import entry_of
from hedgerow.bench.gate import GateError, check, exact_beams
from hedgerow.bench.methods import PAPER, PEERS
from hedgerow.decode.oracle import oracle_search

METHODS = tuple(dict.fromkeys((*PAPER, *PEERS)))
SMALL = Case("small", batch=2, beam_width=7, levels=3, codebook_size=9, items=40)
# XLA compiles each method twice, which takes seconds. These methods cover every kind of step.
COMPILED = (Unconstrained, Hedgerow, StaticPublished, HashBitmap, PpvCarried, CpuTrie)


def search(
    method_class: type[Baseline], problem: Problem, backend: str, logits: list[np.ndarray], beam_width: int
) -> SearchResult:
    """Run the steps of a method."""
    arrays = arrays_of(backend)
    method = method_class(problem, arrays)
    state = method.start(len(logits[0]))
    for level_logits in logits:
        state = method.step(method.tables, state, arrays.put(level_logits), beam_width)
    return method.result(state)


def logits_for(index: hr.TrieIndex, batch: int, beam_width: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    widths = [1] + [beam_width] * (index.num_levels - 1)
    return [
        rng.normal(0, 2, (batch, width, size)).astype(np.float32)
        for width, size in zip(widths, index.codebook_sizes, strict=True)
    ]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@settings(max_examples=6)
@given(catalog=catalogs(), beam_width=st.integers(1, 9), seed=st.integers(0, 2**16))
def test_promise_holds_on_random_catalogs(method, catalog, beam_width, seed):
    problem = Problem(hr.build_index(catalog))
    logits = logits_for(problem.index, 2, beam_width, seed)
    try:
        result = search(method, problem, "numpy", logits, beam_width)
    except Unavailable:
        return
    exact = exact_beams(problem, logits, beam_width)[-1]
    assert result.scores is not None
    if method.promise is Promise.EXACT:
        np.testing.assert_allclose(result.scores, exact.scores, rtol=0, atol=1e-4)
    if method.promise in (Promise.EXACT, Promise.VALID):
        assert problem.index.contains(result.codes[result.live].astype(np.int64)).all()
    if method.promise is Promise.APPROXIMATE:
        # The mask never forbids an allowed code.
        assert (result.live.sum(axis=1) >= exact.num_valid).all()
        assert (result.scores >= exact.scores - 1e-4).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_methods_run_on_every_backend(backend):
    pytest.importorskip(backend)
    arrays = arrays_of(backend)
    problem = Problem(hr.build_index(hr.Catalog(sids_of(SMALL), codebook_sizes=SMALL.codebook_size)))
    logits = logits_of(SMALL)
    exact = exact_beams(problem, logits, SMALL.beam_width)
    by_prefix = exact_beams(problem, logits, SMALL.beam_width, by_prefix=True)[-1]
    placed = [arrays.put(level_logits) for level_logits in logits]
    methods_run = set()
    for method in COMPILED if backend == "jax" else METHODS:
        try:
            entry = entry_of(method, problem, arrays, SMALL, placed)
        except Unavailable:
            continue
        quality = check(entry, problem, exact, by_prefix)
        assert len(entry.levels) == SMALL.levels
        entry.decode()
        if entry.promise is Promise.EXACT:
            assert (quality.valid, quality.recall) == (1, 1)
        methods_run.add(method.name)
    assert {method.name for method in COMPILED} <= methods_run


def test_exact_beams_equals_the_oracle():
    """The gate compares methods with `exact_beams`, which is compared here with brute force."""
    problem = Problem(hr.build_index(hr.Catalog(sids_of(SMALL), codebook_sizes=SMALL.codebook_size)))
    # All beams have the same row, because the oracle reads logits by prefix and the step reads them by rank.
    logits = [np.repeat(rows[:, :1], rows.shape[1], axis=1) for rows in logits_of(SMALL)]
    last = exact_beams(problem, logits, SMALL.beam_width)[-1]
    for request in range(SMALL.batch):
        by_level = [level[request, 0].tolist() for level in logits]
        expected = oracle_search(
            [tuple(sid) for sid in problem.sids.tolist()],
            lambda prefix, rows=by_level: rows[len(prefix)],
            SMALL.levels,
            SMALL.beam_width,
        )
        np.testing.assert_allclose(last.scores[request], [score for _, score in expected], atol=1e-4)


def test_ppv_top_50_loses_beams():
    case = COLD.of(items=500)
    problem = Problem(hr.build_index(hr.Catalog(sids_of(case), codebook_sizes=case.codebook_size)))
    logits = logits_of(case)
    all_codes = search(PpvExact, problem, "numpy", logits, case.beam_width)
    few_codes = search(PpvApproximate, problem, "numpy", logits, case.beam_width)
    assert few_codes.live.sum() < all_codes.live.sum()


def test_static_as_published_keeps_30_candidates_per_beam():
    """Of one beam with 40 children, exact search keeps 40, and STATIC as published keeps 30."""
    sids = np.stack([np.zeros(40, int), np.arange(40), np.zeros(40, int)], axis=1)
    problem = Problem(hr.build_index(hr.Catalog(sids, codebook_sizes=40)))
    logits = logits_for(problem.index, 1, 40, 0)
    assert search(StaticPublished, problem, "numpy", logits, 40).live.sum() == 30
    assert exact_beams(problem, logits, 40)[-1].num_valid.tolist() == [40]


def test_hash_bitmap_allows_every_prefix_of_the_catalog():
    problem = Problem(hr.build_index(hr.Catalog(sids_of(SMALL), codebook_sizes=SMALL.codebook_size)))
    method = HashBitmap(problem, arrays_of("numpy"))
    for sid in problem.sids.tolist():
        for level, code in enumerate(sid):
            state = method.start(1)._replace(codes=np.asarray([[sid[:level]]], np.int32).reshape(1, 1, level))
            allowed = method.mask(method.tables, state, SMALL.codebook_size)
            assert allowed[0, 0, code]


def test_logits_by_prefix_do_not_depend_on_rank():
    level_logits = np.random.default_rng(0).normal(size=(2, 5, 4))
    codes = np.random.default_rng(1).integers(0, 9, (2, 5, 3))
    logits = logits_after(codes, level_logits)
    np.testing.assert_array_equal(logits_after(codes[:, ::-1], level_logits), logits[:, ::-1])
    assert len(np.unique(logits[0], axis=0)) > 1


def test_gate_rejects_a_broken_promise():
    class Wrong(Unconstrained):
        name = "wrong"
        promise = Promise.EXACT

    problem = Problem(hr.build_index(hr.Catalog(sids_of(SMALL), codebook_sizes=SMALL.codebook_size)))
    logits = logits_of(SMALL)
    entry = entry_of(Wrong, problem, arrays_of("numpy"), SMALL, logits)
    exact = exact_beams(problem, logits, SMALL.beam_width)
    with pytest.raises(GateError, match="wrong promises"):
        check(entry, problem, exact, exact[-1])


def test_rejects_a_catalog_above_the_limit_of_a_method():
    class Small(Unconstrained):
        max_items = 3

    problem = Problem(hr.build_index(hr.Catalog(sids_of(SMALL), codebook_sizes=SMALL.codebook_size)))
    with pytest.raises(Unavailable, match="not run above 3 items"):
        entry_of(Small, problem, arrays_of("numpy"), SMALL, logits_of(SMALL))
