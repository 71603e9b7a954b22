"""Warming up: searches of all kinds that traffic will need, so that later ones compile and capture nothing."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

from hedgerow.hf.graphs import MAX_GRAPHS
from hedgerow.hf.prompts import Ids
from hedgerow.hf.searcher import Searcher
from hedgerow.hf.shapes import Shapes
from hedgerow.hf.tasks import Task
from hedgerow.results import Picking


def warm_up(searcher: Searcher, shapes: Shapes, progress: Callable[[int, int], None] | None) -> None:
    """Run searches of the shapes: see `Retriever.warm_up`."""
    graphs, sizes = searcher.graphs, [(shapes.batch_size, shapes.prompt_length), (1, shapes.prompt_length)]
    if graphs is not None:
        sizes = shapes.sizes()
        # Each twice: requests of a batch can have different widths.
        num_graphs = 2 * len(sizes) * len(shapes.beam_widths) * len(shapes.rules)
        graphs.prepare(shapes.room, shapes.beam_widths, max(MAX_GRAPHS, num_graphs))
    kinds = [(*rules, False) for rules in shapes.rules] + [(False, False, True)] * shapes.candidates
    batches = list(product(dict.fromkeys(sizes), shapes.beam_widths, kinds, (False, True)))
    for done, ((batch_size, length), beam_width, kind, mixed) in enumerate(batches):
        _search(searcher, batch_size, length, beam_width, kind, mixed=mixed)
        if progress is not None:
            progress(done + 1, len(batches))


def _search(
    searcher: Searcher, batch_size: int, length: int, beam_width: int, kind: tuple[bool, bool, bool], *, mixed: bool
) -> None:
    """Run one search of a kind: whether it has a set, exclusions, candidates; `mixed`: of different widths."""
    index = searcher.index
    has_set, has_exclusions, has_candidates = kind
    ids = index.item_ids[:1].to_pylist()
    rules = searcher.rules(
        1,
        index.constraint(ids=ids, name="warm-up") if has_set else None,
        [ids] if has_exclusions else None,
        [ids] if has_candidates else None,
    )
    widths = [beam_width] * (batch_size - 1) + [max(1, beam_width - 1) if mixed else beam_width]
    prompt = _prompt(searcher, length)
    tasks = [Task(prompt, rules, Picking(1, None, None), searcher.width(width)) for width in widths]
    searcher.results(tasks, range(batch_size))


def _prompt(searcher: Searcher, length: int) -> Ids:
    """A prompt of up to `length` tokens. Their values do not change what a search needs."""
    begin, token = searcher.search.model.tokens.begin, int(searcher.search.model.tokens.token_ids[0].max())
    longest = searcher.max_length()
    length = length if longest is None else min(length, longest)
    return [*[token] * max(1, length - len(begin)), *begin]
