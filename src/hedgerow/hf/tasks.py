"""Tasks: requests that have been checked, and their batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hedgerow.constraints.requests import BatchRules
from hedgerow.errors import DeadlineError, HedgerowError
from hedgerow.hf.prompts import Ids
from hedgerow.hf.search import ModelSearch
from hedgerow.index.bits import power_of_two
from hedgerow.picking import Picking
from hedgerow.results import Results

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
        fill: as for `hedgerow.Request`.
    """

    ids: Ids
    rules: BatchRules
    picking: Picking
    beam_width: int
    deadline: float | None = None
    fill: bool = False


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
