"""Warming up: searches of all kinds that traffic will need, so that later ones compile and capture nothing."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch

from hedgerow.decode.prepare import Room, prepared
from hedgerow.decode.search import beam_search
from hedgerow.hf.graphs import MAX_GRAPHS
from hedgerow.hf.prompts import Ids
from hedgerow.hf.searcher import Searcher
from hedgerow.hf.shapes import Shapes
from hedgerow.hf.tasks import Task
from hedgerow.picking import Picking
from hedgerow.results import batch_results

# Whether a search has a set, exclusions, candidates, and requests of different widths.
Kind = tuple[bool, bool, bool, bool]


def warm_up(searcher: Searcher, shapes: Shapes, progress: Callable[[int, int], None] | None) -> None:
    """Run searches of the shapes: see `Retriever.warm_up`."""
    searches = _searches(searcher, shapes)
    for done, (batch_size, length, beam_width, kind) in enumerate(searches):
        _search(searcher, batch_size, length, beam_width, kind)
        if progress is not None:
            progress(done + 1, len(searches))


@torch.inference_mode()
def warm_up_index(searcher: Searcher, beam_width: int) -> None:
    """Search the index once without the model, which has been warmed up with another version.

    It reads the memory of the index and of its items, and makes its arrays for rules.
    """
    index, device_index = searcher.index, searcher.device_index
    rules = searcher.rules(1, None, [index.item_ids[:1].to_pylist()])
    room = Room() if searcher.graphs is None else searcher.graphs.room
    beams = beam_search(
        device_index,
        lambda beams: torch.zeros((*beams.states.shape, index.codebook_sizes[beams.level]), device=device_index.device),
        batch_size=1,
        beam_width=beam_width,
        constraints=prepared(device_index, rules, room),
        kernel=searcher.search.kernel,
    )
    batch_results(index, beams, rules, [Picking(1, None, None)])


def _searches(searcher: Searcher, shapes: Shapes) -> list[tuple[int, int, int, Kind]]:
    """The batch size, prompt length, beam width and kind of each search."""
    kinds = [(*rules, False) for rules in shapes.rules] + [(False, False, True)] * shapes.candidates
    if searcher.graphs is None:
        # Kernels are compiled for kinds of searches and not for sizes. The last two allocate memory.
        sizes = [(shapes.batch_size, shapes.prompt_length, True), (1, shapes.prompt_length, False)]
        searches = [(shapes.batch_size, 1, width, (*kind, False)) for width, kind in product(shapes.beam_widths, kinds)]
        widest, none = max(shapes.beam_widths), (False, False, False)
        searches += [(size, length, widest, (*none, mixed)) for size, length, mixed in sizes]
        return searches + _forms(searcher, shapes)
    sizes = shapes.sizes()
    # Each twice: requests of a batch can have different widths.
    num_graphs = 2 * len(sizes) * len(shapes.beam_widths) * len(shapes.rules)
    searcher.graphs.prepare(shapes.room, shapes.beam_widths, max(MAX_GRAPHS, num_graphs))
    return [
        (*size, width, (*kind, mixed))
        for size, width, kind, mixed in product(sizes, shapes.beam_widths, kinds, (False, True))
    ]


def _forms(searcher: Searcher, shapes: Shapes) -> list[tuple[int, int, int, Kind]]:
    """Searches for each form of compiled layers: of one request, prompt token or beam, and of several."""
    if searcher.search.model.compiled is None:
        return []
    sizes = product({1, shapes.batch_size}, {1, shapes.prompt_length}, {1, max(shapes.beam_widths)})
    return [(batch, length, width, (False, False, False, False)) for batch, length, width in sizes]


def _search(searcher: Searcher, batch_size: int, length: int, beam_width: int, kind: Kind) -> None:
    """Run one search."""
    index = searcher.index
    has_set, has_exclusions, has_candidates, mixed = kind
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
