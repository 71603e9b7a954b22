"""A whole search as one CUDA graph: every level's kernels are launched at once, and the host waits for none."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hedgerow.decode.beams import Beams
from hedgerow.hf.prompts import Ids, padded
from hedgerow.hf.search import ModelSearch
from hedgerow.hf.tree import TreeDecoder
from hedgerow.index.bits import power_of_two

PROMPT_STEP = 64
# Kernels compile, and libraries set themselves up, before anything is captured.
WARM_UPS = 3


@dataclass(frozen=True)
class Captured:
    """A search of one size: its inputs, which are written to, its graph, and its outputs, which the graph writes."""

    prompts: Tensor
    lengths: Tensor
    graph: torch.cuda.CUDAGraph
    history: list[Beams]

    def __call__(self, prompts: Tensor, lengths: Tensor) -> list[Beams]:
        """Runs the search for other prompts of the same size."""
        self.prompts.copy_(prompts)
        self.lengths.copy_(lengths)
        self.graph.replay()
        return [
            Beams(beams.codes.clone(), beams.scores.clone(), beams.states.clone(), beams.parents.clone())
            for beams in self.history
        ]


def captured_search(
    search: ModelSearch, known: dict[tuple[int, int, int], Captured], prompts: list[Ids], beam_width: int
) -> list[Beams]:
    """Returns what the retriever's search gives, by the graph for its size; captured now if it is the first of that size."""
    size, length = bucket(len(prompts), max(map(len, prompts)))
    ids, lengths = padded(prompts + prompts[:1] * (size - len(prompts)), search.model.device, length=length)
    key = (size, length, beam_width)
    if key not in known:
        known[key] = _capture(search, ids, lengths, beam_width)
    return [_first(beams, len(prompts)) for beams in known[key](ids, lengths)]


def bucket(batch_size: int, length: int) -> tuple[int, int]:
    """Returns the batch size and the prompt length that a search is padded to."""
    return power_of_two(batch_size), -(-length // PROMPT_STEP) * PROMPT_STEP


def _capture(search: ModelSearch, prompts: Tensor, lengths: Tensor, beam_width: int) -> Captured:
    assert search.masking is not None
    prompts, lengths, masking = prompts.clone(), lengths.clone(), search.masking

    def run() -> list[Beams]:
        decoder = TreeDecoder(search.model, masking, prompts, lengths, beam_width)
        return search.run(decoder, len(prompts), beam_width, None)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        history = run()
    return Captured(prompts, lengths, graph, history)


def _first(beams: Beams, requests: int) -> Beams:
    return Beams(beams.codes[:requests], beams.scores[:requests], beams.states[:requests], beams.parents[:requests])
