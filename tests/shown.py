"""What a request of a batch may be shown, made at random, and what a search has to find then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from support import FakeModel, search

import hedgerow as hr
from hedgerow.decode.ops import to_numpy
from hedgerow.decode.oracle import oracle_search

SHARES = (0.0, 0.05, 0.3, 0.9, 1.0)


@dataclass
class Request:
    """One request's rule over the rows of a catalog: a mask or None, and excluded rows or None."""

    mask: np.ndarray | None
    excluded: np.ndarray | None

    def shown(self, items: int) -> np.ndarray:
        """Bool [N], which rows of the catalog it may be shown."""
        shown = np.ones(items, bool) if self.mask is None else self.mask.copy()
        if self.excluded is not None:
            shown[self.excluded] = False
        return shown


def random_requests(rng: np.random.Generator, items: int, batch: int) -> list[Request]:
    """Requests with sets and exclusions of all sizes, and without; two of them may share a set."""
    masks = [rng.random(items) < rng.choice(SHARES) for _ in range(2)]
    requests = []
    for _ in range(batch):
        mask = masks[rng.integers(2)] if rng.random() < 0.7 else None
        excluded = rng.permutation(items)[: rng.integers(0, items + 1)] if rng.random() < 0.6 else None
        requests.append(Request(mask, excluded))
    return requests


def rules_of(index: hr.TrieIndex, requests: list[Request]) -> dict[str, Any]:
    """The arguments `constraints` and `exclude` for requests over a catalog whose ids are its row numbers."""
    rows = np.asarray(index.item_ids)
    sets = [None if request.mask is None else index.constraint(request.mask[rows]) for request in requests]
    return {"constraints": sets, "exclude": [request.excluded for request in requests]}


def assert_finds_what_is_shown(
    catalog: hr.Catalog, kernel: str, requests: list[Request], beam_width: int, *, dense_levels: Any = "auto", **options
) -> hr.Beams:
    """Asserts that a search equals the oracle's, and beam for beam that of an index of each request's items alone."""
    index = hr.build_index(catalog, dense_levels=dense_levels)
    model, batch = FakeModel(catalog.codebook_sizes), len(requests)
    beams = search(
        index, kernel, model, batch_size=batch, beam_width=beam_width, **rules_of(index, requests), **options
    )
    codes, scores, states = to_numpy(beams.codes), to_numpy(beams.scores), to_numpy(beams.states)
    sids = [tuple(sid) for sid in catalog.sids.tolist()]
    for at, request in enumerate(requests):
        shown = request.shown(catalog.num_items)
        normalize = options.get("normalize", "codes")
        expected = oracle_search(sids, model.logits_of(at), catalog.num_levels, beam_width, normalize, shown)
        live = len(expected)
        assert to_numpy(beams.num_valid)[at] == live
        np.testing.assert_allclose(scores[at, :live], [score for _, score in expected], rtol=1e-5, atol=1e-5)
        assert sorted(map(tuple, codes[at, :live].tolist())) == sorted(sid for sid, _ in expected)
        assert (index.find(codes[at, :live]) == states[at, :live]).all()
        alone = hr.build_index(catalog.filter(shown))
        own = search(alone, "numpy-array", model, batch_size=batch, beam_width=beam_width, **options)
        assert (codes[at] == own.codes[at]).all()
        np.testing.assert_allclose(scores[at], own.scores[at], rtol=1e-5, atol=1e-5)
    return beams
