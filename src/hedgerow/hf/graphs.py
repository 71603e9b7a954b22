"""A whole search as one CUDA graph: the kernels of all levels are launched at once, without waiting for the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hedgerow.decode.beams import Beams
from hedgerow.errors import ArgumentError
from hedgerow.hf.layers import capture_key
from hedgerow.hf.limits import rope_growth, rope_switch
from hedgerow.hf.model import INF
from hedgerow.hf.prompts import Ids, padded
from hedgerow.hf.search import ModelSearch, Searched
from hedgerow.hf.tree import TreeDecoder
from hedgerow.index.bits import power_of_two

PROMPT_STEP = 64
# Kernels are compiled and libraries are initialized before the capture.
WARM_UPS = 3
# Batch size, prompt length and beam width.
Size = tuple[int, int, int]


@dataclass(frozen=True)
class Captured:
    """A captured search of one size.

    Attributes:
        prompts: [B, T] int64, the input: token ids.
        lengths: [B] int64, the input: tokens per prompt.
        graph: reads the inputs and writes `searched`.
        searched: the search.
        key: the state of the model that the graph has fixed.
    """

    prompts: Tensor
    lengths: Tensor
    graph: torch.cuda.CUDAGraph
    searched: Searched
    key: tuple[Any, ...]

    def __call__(self, prompts: Tensor, lengths: Tensor, batch_size: int) -> Searched:
        """Run the search for other prompts of the same size; the first `batch_size` of them are no padding."""
        self.prompts.copy_(prompts)
        self.lengths.copy_(lengths)
        self.graph.replay()
        history = [_first(beams, batch_size) for beams in self.searched.history]
        deviation = self.searched.deviation
        return Searched(
            history,
            self.searched.invalid[:batch_size].clone(),
            None if deviation is None else deviation.clone(),
        )


def check_capture(search: ModelSearch) -> None:
    """Check that searches can be captured in CUDA graphs.

    Raises:
        ArgumentError: they cannot.
    """
    if min(rope_switch(search.model.config), rope_growth(search.model.config)) < INF:
        raise ArgumentError(
            "cuda_graphs does not support 'longrope' and 'dynamic', whose angles depend on the prompt's length."
        )
    if search.generation:
        raise ArgumentError(
            f"cuda_graphs does not support {', '.join(search.generation.names)} of model.generation_config; set it to "
            "None or to its default."
        )
    device, decoding = search.model.device, search.way
    if device.type != "cuda" or decoding != "tree":
        raise ArgumentError(
            f"cuda_graphs needs a model on a CUDA device and decoding='tree'; got device {device} and "
            f"decoding={decoding!r}."
        )


def captured_search(
    search: ModelSearch, captured: dict[Size, Captured], prompts: list[Ids], beam_width: int
) -> Searched:
    """Run an unconstrained search by the graph of its size. The first search of a size captures the graph.

    Graphs of a model that has changed are captured again.

    Args:
        search: the model, the index and the options.
        captured: the graphs so far; a new one is added to it.
        prompts: token ids of each prompt.
        beam_width: M.

    Returns:
        As `ModelSearch.run`.

    Raises:
        ArgumentError: as for `check_capture`.
    """
    check_capture(search)
    assert search.model.probed is not None
    state = (search.model.probed.key, capture_key(search.model.model))
    for stale in [size for size, graph in captured.items() if graph.key != state]:
        del captured[stale]
    size, length = bucket(len(prompts), max(map(len, prompts)))
    ids, lengths = padded(prompts + prompts[:1] * (size - len(prompts)), search.model.device, length=length)
    key = (size, length, beam_width)
    if key not in captured:
        captured[key] = _capture(search, ids, lengths, beam_width, state)
    return captured[key](ids, lengths, len(prompts))


def bucket(batch_size: int, length: int) -> tuple[int, int]:
    """Compute the batch size and the prompt length that a search is padded to."""
    return power_of_two(batch_size), -(-length // PROMPT_STEP) * PROMPT_STEP


def _capture(
    search: ModelSearch, prompts: Tensor, lengths: Tensor, beam_width: int, state: tuple[Any, ...]
) -> Captured:
    assert search.masking is not None
    prompts, lengths, masking = prompts.clone(), lengths.clone(), search.masking

    def run() -> Searched:
        decoder = TreeDecoder(search.model, masking, prompts, lengths, beam_width, search.num_read)
        return search.run(decoder, len(prompts), beam_width, None)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        searched = run()
    return Captured(prompts, lengths, graph, searched, state)


def _first(beams: Beams, requests: int) -> Beams:
    """A copy of the beams of the first requests; the others are padding."""
    arrays = (beams.codes, beams.scores, beams.states, beams.parents, beams.code_scores)
    return Beams(*(None if array is None else array[:requests].clone() for array in arrays))
