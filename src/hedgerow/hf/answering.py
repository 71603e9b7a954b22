"""Answering: requests of different rules and sizes, in batches, and the scores of given items."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hedgerow._arguments import whole_number
from hedgerow.candidates import candidate_index
from hedgerow.constraints.requests import BatchRules, joined_rules
from hedgerow.constraints.sets import ConstraintSet
from hedgerow.decode.ops import to_numpy
from hedgerow.errors import ArgumentError, ConstraintError, DeadlineError, HedgerowError
from hedgerow.hf.inspection import Inspection
from hedgerow.hf.prompts import Ids
from hedgerow.hf.search import ModelSearch
from hedgerow.index.bits import power_of_two
from hedgerow.index.lookup import check_is_list, known_rows, leaves_of
from hedgerow.request import Request
from hedgerow.results import Picking, Results, batch_results

Answer = Results | HedgerowError
# Answers the tasks of a batch; the numbers of the tasks are for errors.
AnswerBatch = Callable[[Sequence["Task"], Sequence[int]], list[Results]]


@dataclass(frozen=True, eq=False)
class Task:
    """A request that has been checked.

    Attributes:
        ids: the token ids of its prompt.
        rules: its rules, as a batch of one request.
        picking: the order and number of its items.
        beam_width: M.
        deadline: as for `hedgerow.Request`.
    """

    ids: Ids
    rules: BatchRules
    picking: Picking
    beam_width: int
    deadline: float | None = None


def batches_of(search: ModelSearch, tasks: Sequence[Task], max_tokens: int) -> list[list[int]]:
    """Group tasks into batches of at most `max_tokens` tokens.

    In a batch, all tasks have candidates or none has, and the widest has less than twice the beams of the narrowest.
    """
    groups: dict[Hashable, list[int]] = {}
    for number, task in enumerate(tasks):
        key = task.rules.candidates is not None, power_of_two(task.beam_width)
        groups.setdefault(key, []).append(number)
    found = []
    for numbers in groups.values():
        width = max(tasks[number].beam_width for number in numbers)
        batches = search.batches([tasks[number].ids for number in numbers], width, max_tokens)
        found += [[numbers[position] for position in batch] for batch in batches]
    return found


def answers_of(tasks: Mapping[int, Task], numbers: Sequence[int], answer: AnswerBatch) -> Iterator[tuple[int, Answer]]:
    """Answer the tasks of a batch. If the batch fails, each of its tasks is answered alone.

    Args:
        tasks: all tasks, by number.
        numbers: those of the batch.
        answer: answers the tasks of a batch.

    Yields:
        The number of each task of the batch, and its answer.
    """
    late = [number for number in numbers if _is_late(tasks[number])]
    for number in late:
        yield number, DeadlineError("the deadline of this request had passed before its search began.")
    numbers = [number for number in numbers if number not in late]
    if not numbers:
        return
    try:
        yield from zip(numbers, answer([tasks[number] for number in numbers], numbers), strict=True)
    except HedgerowError as error:
        if len(numbers) == 1:
            yield numbers[0], error
        else:
            for number in numbers:
                yield from answers_of(tasks, [number], answer)


def _is_late(task: Task) -> bool:
    return task.deadline is not None and time.monotonic() > task.deadline


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
        answers: dict[int, Answer] = {}
        requests = list(requests)
        tasks: dict[int, Task] = {}
        for number, request in enumerate(requests):
            try:
                tasks[number] = self._task(request)
            except HedgerowError as error:
                answers[number] = error
        numbers = list(tasks)
        for batch in batches_of(self._search, list(tasks.values()), self.max_tokens):
            answers |= answers_of(tasks, [numbers[position] for position in batch], self._results)
        return [answers[number] for number in range(len(requests))]

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
        if self._search.normalize == "allowed":
            raise ArgumentError("score needs normalize='codes' or 'vocab'; this retriever has normalize='allowed'.")
        ids, rows = self._encode_one(prompt), known_rows(self.index, item_ids, "item_ids", error=ArgumentError)
        if self.version is not None and self.version.removed[rows].any():
            removed = rows[self.version.removed[rows]][0]
            raise ArgumentError(f"{self.index.item_ids[int(removed)].as_py()!r} was removed from the index.")
        # Each SID once, as many at a time as a batch can hold.
        leaves, positions = np.unique(leaves_of(self.index, rows), return_inverse=True)
        size = max(1, (self.max_tokens - len(ids)) // self.index.num_levels)
        parts = [leaves[start : start + size] for start in range(0, len(leaves), size)]
        return np.concatenate([np.zeros(0, np.float32), *(self._scores(ids, part) for part in parts)])[positions]

    def _task(self, request: Request) -> Task:
        """Check a request alone.

        Raises:
            ArgumentError: it is not a `Request`, or its prompt is invalid.
            ConstraintError: its rules are invalid.
        """
        if not isinstance(request, Request):
            raise ArgumentError(f"expected a Request; got {type(request).__name__}. Make one with hr.Request(prompt).")
        if not isinstance(request.constraints, ConstraintSet | None):
            given = type(request.constraints).__name__
            raise ConstraintError(f"constraints of a request must be one constraint set or None; got {given}.")
        lists = {"exclude": request.exclude, "candidates": request.candidates}
        for name, ids in lists.items():
            if ids is not None:
                check_is_list(ids, name, ConstraintError)
        rules = self._rules(1, request.constraints, *([ids] for ids in lists.values()))
        picking = Picking(request.k, request.order_by, request.caps)
        # As a list of one prompt, an empty list of token ids is an empty prompt, and not no prompt.
        ids = self._encode_one(request.prompt if isinstance(request.prompt, Mapping) else [request.prompt])
        return Task(ids, rules, picking, self._width(request.beam_width), request.deadline)

    def _width(self, beam_width: int) -> int:
        """The number of beams of a search: more beams than SIDs would be dead, and take memory."""
        return min(whole_number(beam_width, "beam_width"), max(1, self.index.num_sids))

    def _results(self, tasks: Sequence[Task], numbers: Sequence[int]) -> list[Results]:
        """Answer the tasks of a batch; their numbers are for errors."""
        rules, pickings = joined_rules([task.rules for task in tasks]), [task.picking for task in tasks]
        widths = [task.beam_width for task in tasks]
        candidates = None if rules.candidates is None else candidate_index(rules)
        prompts = [task.ids for task in tasks]
        beams = self._beams(prompts, max(widths), rules, numbers, widths=widths, candidates=candidates)[-1]
        return (
            batch_results(self.index, beams, rules, pickings)
            if candidates is None
            else candidates._results(beams, pickings)
        )

    def _scores(self, prompt: Ids, leaves: np.ndarray) -> np.ndarray:
        """The scores float32 [R] of distinct SIDs, given by their leaves [R], ascending."""
        start, _ = self.index.rows_of(leaves)
        rules = BatchRules(self.index, 1, None, None, (start,))
        candidates = candidate_index(rules)
        beams = self._beams([prompt], len(leaves), rules, [0], candidates=candidates)[-1]
        scores = np.full(len(leaves), -np.inf, np.float32)
        states = to_numpy(beams.states[0])
        scores[states[states >= 0]] = to_numpy(beams.scores[0])[states >= 0]
        return scores
