"""A whole search as one CUDA graph: the kernels of all levels are launched at once, without waiting for the host."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hedgerow.decode.beams import Beams
from hedgerow.errors import ArgumentError
from hedgerow.hf.model import INF
from hedgerow.hf.prompts import Ids, padded
from hedgerow.hf.search import ModelSearch
from hedgerow.hf.tree import TreeDecoder, rope_switch
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
        graph: reads the inputs and writes `history`.
        history: the beams after every level.
    """

    prompts: Tensor
    lengths: Tensor
    graph: torch.cuda.CUDAGraph
    history: list[Beams]

    def __call__(self, prompts: Tensor, lengths: Tensor) -> list[Beams]:
        """Run the search for other prompts of the same size."""
        self.prompts.copy_(prompts)
        self.lengths.copy_(lengths)
        self.graph.replay()
        return [
            Beams(beams.codes.clone(), beams.scores.clone(), beams.states.clone(), beams.parents.clone())
            for beams in self.history
        ]


def check_capture(search: ModelSearch) -> None:
    """Check that searches can be captured in CUDA graphs.

    Raises:
        ArgumentError: they cannot.
    """
    if rope_switch(search.model.config) < INF:
        raise ArgumentError("cuda_graphs does not support 'longrope', whose angles depend on the prompt's length.")
    device, decoding = search.model.device, "plain" if search.masking is None else "tree"
    if device.type != "cuda" or decoding != "tree":
        raise ArgumentError(
            f"cuda_graphs needs a model on a CUDA device and decoding='tree'; got device {device} and "
            f"decoding={decoding!r}."
        )


def captured_search(
    search: ModelSearch, captured: dict[Size, Captured], prompts: list[Ids], beam_width: int
) -> list[Beams]:
    """Run an unconstrained search by the graph of its size. The first search of a size captures the graph.

    Args:
        search: the model, the index and the options.
        captured: the graphs so far; a new one is added to it.
        prompts: token ids of each prompt.
        beam_width: M.

    Returns:
        The beams after every level, as `ModelSearch.run`.
    """
    size, length = bucket(len(prompts), max(map(len, prompts)))
    ids, lengths = padded(prompts + prompts[:1] * (size - len(prompts)), search.model.device, length=length)
    key = (size, length, beam_width)
    if key not in captured:
        captured[key] = _capture(search, ids, lengths, beam_width)
    return [_first(beams, len(prompts)) for beams in captured[key](ids, lengths)]


def bucket(batch_size: int, length: int) -> tuple[int, int]:
    """Compute the batch size and the prompt length that a search is padded to."""
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
    """The beams of the first requests; the others are padding."""
    return Beams(beams.codes[:requests], beams.scores[:requests], beams.states[:requests], beams.parents[:requests])
