"""Random rules of requests, and the result that a search under them must have."""

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
    """The rule of one request over the rows of a catalog: a mask or None, and excluded rows or None."""

    mask: np.ndarray | None
    excluded: np.ndarray | None

    def allowed(self, num_items: int) -> np.ndarray:
        """Bool [N]: the rows of the catalog that the request may return."""
        allowed = np.ones(num_items, bool) if self.mask is None else self.mask.copy()
        if self.excluded is not None:
            allowed[self.excluded] = False
        return allowed


def random_requests(rng: np.random.Generator, num_items: int, batch_size: int) -> list[Request]:
    """Requests with and without sets and exclusions of all sizes. Two requests can have the same set."""
    masks = [rng.random(num_items) < rng.choice(SHARES) for _ in range(2)]
    requests = []
    for _ in range(batch_size):
        mask = masks[rng.integers(2)] if rng.random() < 0.7 else None
        excluded = rng.permutation(num_items)[: rng.integers(0, num_items + 1)] if rng.random() < 0.6 else None
        requests.append(Request(mask, excluded))
    return requests


def rules_of(index: hr.TrieIndex, requests: list[Request]) -> dict[str, Any]:
    """The arguments `constraints` and `exclude` of requests over a catalog whose ids are its row numbers."""
    rows = np.asarray(index.item_ids)
    sets = [
        None if request.mask is None else index.constraint(request.mask[rows], order="index") for request in requests
    ]
    return {"constraints": sets, "exclude": [request.excluded for request in requests]}


def assert_finds_allowed_items(
    catalog: hr.Catalog, kernel: str, requests: list[Request], beam_width: int, *, dense_levels: Any = "auto", **options
) -> hr.Beams:
    """Assert that a search equals the oracle, and beam for beam a search of an index of each request's items alone."""
    index = hr.build_index(catalog, dense_levels=dense_levels)
    model, batch_size = FakeModel(catalog.codebook_sizes), len(requests)
    beams = search(
        index, kernel, model, batch_size=batch_size, beam_width=beam_width, **rules_of(index, requests), **options
    )
    codes, scores, states = to_numpy(beams.codes), to_numpy(beams.scores), to_numpy(beams.states)
    sids = [tuple(sid) for sid in catalog.sids.tolist()]
    normalize = options.get("normalize", "codes")
    for number, request in enumerate(requests):
        allowed = request.allowed(catalog.num_items)
        expected = oracle_search(sids, model.logits_of(number), catalog.num_levels, beam_width, normalize, allowed)
        live = len(expected)
        assert to_numpy(beams.num_valid)[number] == live
        np.testing.assert_allclose(scores[number, :live], [score for _, score in expected], rtol=1e-5, atol=1e-5)
        assert sorted(map(tuple, codes[number, :live].tolist())) == sorted(sid for sid, _ in expected)
        assert (index.find(codes[number, :live]) == states[number, :live]).all()
        subset = hr.build_index(catalog.filter(allowed))
        alone = search(subset, "numpy-array", model, batch_size=batch_size, beam_width=beam_width, **options)
        assert (codes[number] == alone.codes[number]).all()
        np.testing.assert_allclose(scores[number], alone.scores[number], rtol=1e-5, atol=1e-5)
    return beams
