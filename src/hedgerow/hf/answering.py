"""Answering: requests of different rules and sizes, in batches, and the scores of given items."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from hedgerow.errors import ArgumentError, HedgerowError
from hedgerow.hf.filling import filled
from hedgerow.hf.inspection import Inspection
from hedgerow.hf.searcher import Searcher
from hedgerow.hf.tasks import Answer, Task, answers_of, batches_of
from hedgerow.index.lookup import known_rows, leaves_of
from hedgerow.request import Request
from hedgerow.results import Results

# The SIDs that are scored at a time.
MAX_SCORED = 256


class Answering(Inspection):
    """The base of `Retriever`: requests in batches."""

    def answer(self, requests: Iterable[Request]) -> list[Results | HedgerowError]:
        """Answer requests that each have their own rules and sizes: one answer per request, in their order.

        A request that is invalid, or fails, gets the error as its answer, and the others get their results. Each gets
        what `retrieve` gives for it alone.

        Args:
            requests: the requests.

        Returns:
            For each request its `Results`, or the error.

        Raises:
            ArgumentError: `requests` is not a list of requests.

        Examples:
            ```python
            import hedgerow as hr
            from hedgerow.demo.films import load_catalog, load_retriever

            retriever = load_retriever(hr.build_index(load_catalog()))
            requests = [hr.Request("Recommend me a western", k=3), hr.Request(""), hr.Request("A comedy", beam_width=9)]
            western, error, comedy = retriever.answer(requests)
            assert len(western) == 3 and "empty" in str(error)
            ```
        """
        if isinstance(requests, str | Mapping | Request) or not isinstance(requests, Iterable):
            advice = " For one request, pass [request]." if isinstance(requests, Request) else ""
            raise ArgumentError(f"expected a list of requests; got {type(requests).__name__}.{advice}")
        searcher, requests = self._searcher, list(requests)
        answers: dict[int, Answer] = {}
        tasks: dict[int, Task] = {}
        for number, request in enumerate(requests):
            try:
                tasks[number] = searcher.task(request)
            except HedgerowError as error:
                answers[number] = error
        numbers = list(tasks)
        for batch in batches_of(searcher.search, list(tasks.values()), self.max_tokens):
            answers |= answers_of(tasks, [numbers[position] for position in batch], searcher.results)
        answers |= self._filled(searcher, tasks, answers)
        return [answers[number] for number in range(len(requests))]

    def _filled(
        self, searcher: Searcher, tasks: Mapping[int, Task], answers: Mapping[int, Answer]
    ) -> dict[int, Answer]:
        """The new answers of tasks with `fill` that have fewer than k items."""
        options = {"width": searcher.width, "answer": searcher.results}
        return filled(searcher.search, tasks, answers, max_tokens=self.max_tokens, **options)

    def score(self, prompt: Any, item_ids: Any) -> np.ndarray:
        """Compute the exact scores of given items, for example to rank what another retriever found.

        Args:
            prompt: one prompt, as for `retrieve`.
            item_ids: R ids of items, in any order.

        Returns:
            float32 [R], the scores that `retrieve` gives these items; -inf if the model bans a code.

        Raises:
            ArgumentError: an item is not in the index or was removed; `normalize` is "allowed", which needs the items
                to compare with; or as for `retrieve`.

        Examples:
            ```python
            import hedgerow as hr
            from hedgerow.demo.films import load_catalog, load_retriever

            retriever = load_retriever(hr.build_index(load_catalog()))
            (results,) = retriever.retrieve("Recommend me a western", k=3)
            scores = retriever.score("Recommend me a western", results.item_ids)
            assert abs(scores - results.scores).max() < 1e-4
            ```
        """
        searcher = self._searcher
        if searcher.search.normalize == "allowed":
            raise ArgumentError("score needs normalize='codes' or 'vocab'; this retriever has normalize='allowed'.")
        index, version = searcher.index, searcher.version
        ids, rows = searcher.encode_one(prompt), known_rows(index, item_ids, "item_ids", error=ArgumentError)
        if version is not None and version.removed[rows].any():
            removed = rows[version.removed[rows]][0]
            raise ArgumentError(f"{index.item_ids[int(removed)].as_py()!r} was removed from the index.")
        # Each SID once, a limited number at a time: the masks of beams grow with the square of their number.
        leaves, positions = np.unique(leaves_of(index, rows), return_inverse=True)
        size = min(MAX_SCORED, max(1, (self.max_tokens - len(ids)) // index.num_levels))
        parts = [leaves[start : start + size] for start in range(0, len(leaves), size)]
        return np.concatenate([np.zeros(0, np.float32), *(searcher.scores(ids, part) for part in parts)])[positions]
