"""Filling: searches with more beams for requests whose beams found fewer than k items."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from hedgerow.hf.search import ModelSearch
from hedgerow.hf.tasks import Answer, AnswerBatch, Task, answers_of, batches_of
from hedgerow.results import Results

# With these reasons, more beams may find more items.
GROWS = ("beams", "caps")


def filled(
    search: ModelSearch,
    tasks: Mapping[int, Task],
    answers: Mapping[int, Answer],
    *,
    max_tokens: int,
    width: Callable[[int], int],
    answer: AnswerBatch,
) -> dict[int, Answer]:
    """The new answers of tasks with `fill` that have fewer than k items.

    Such a task is searched again with twice the beams, until it has k items, or its beams have found all items that it
    may return and that the model does not ban.

    Args:
        search: the search.
        tasks: all tasks, by number.
        answers: their answers, by number.
        max_tokens: the maximum size of a batch in tokens.
        width: the number of beams of a search, from the number that is asked for.
        answer: answers the tasks of a batch.
    """
    found: dict[int, Answer] = {}
    pending = _wider(tasks, answers, width)
    while pending:
        numbers, again = list(pending), {}
        for batch in batches_of(search, list(pending.values()), max_tokens):
            again |= answers_of(pending, [numbers[position] for position in batch], answer)
        found |= again
        pending = _wider(pending, again, width)
    return found


def _wider(tasks: Mapping[int, Task], answers: Mapping[int, Answer], width: Callable[[int], int]) -> dict[int, Task]:
    """The tasks to search again, with twice the beams. Their search has begun, so they have no deadline any more."""
    found = {}
    for number, task in tasks.items():
        results, beam_width = answers.get(number), width(2 * task.beam_width)
        if not task.fill or not isinstance(results, Results) or results.reason not in GROWS:
            continue
        # Dead beams: the search has found everything.
        if (results.num_valid or 0) >= task.beam_width and beam_width > task.beam_width:
            found[number] = replace(task, beam_width=beam_width, deadline=None)
    return found
