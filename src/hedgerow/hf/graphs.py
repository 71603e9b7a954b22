"""A whole search as one CUDA graph: the kernels of all levels are launched at once, without waiting for the host."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hedgerow.decode.beams import Beams
from hedgerow.decode.device import DeviceIndex
from hedgerow.decode.prepare import Room
from hedgerow.decode.prepared import PreparedConstraints
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
# The graphs that are kept. They share their memory, but each has its inputs and outputs.
MAX_GRAPHS = 128


@dataclass(frozen=True)
class PaddedBatch:
    """The prompts of a batch, filled up to one of a few sizes, for which graphs are captured.

    Attributes:
        prompts: the token ids of B prompts, B a power of two: those of the batch, then copies of the first.
        widths: the number of beams of each prompt; None if all have as many.
        length: T, the number of tokens that prompts are padded to.
        num_requests: the number of prompts that are no copies.
    """

    prompts: list[Ids]
    widths: list[int] | None
    length: int
    num_requests: int

    @classmethod
    def of(cls, prompts: list[Ids], widths: Sequence[int], beam_width: int) -> PaddedBatch:
        """Fill up a batch whose search has `beam_width` beams."""
        size, length = bucket(len(prompts), max(map(len, prompts)))
        missing = size - len(prompts)
        filled = [*widths, *[widths[0]] * missing] if {*widths, beam_width} != {beam_width} else None
        return cls(prompts + prompts[:1] * missing, filled, length, len(prompts))

    @property
    def requests(self) -> list[int]:
        """For each prompt its position in the batch, or that of the prompt of which it is a copy."""
        return [*range(self.num_requests), *[0] * (len(self.prompts) - self.num_requests)]


@dataclass(frozen=True)
class Captured:
    """A captured search of one size.

    Attributes:
        prompts: [B, T] int64, the input: token ids.
        lengths: [B] int64, the input: tokens per prompt.
        widths: [B] int64, the input: beams per prompt; None if all have as many.
        constraints: the input: the rules of the batch; None if it has none.
        replay: reads the inputs and writes `searched`.
        searched: the search.
    """

    prompts: Tensor
    lengths: Tensor
    widths: Tensor | None
    constraints: PreparedConstraints | None
    replay: Callable[[], object]
    searched: Searched

    def __call__(self, batch: PaddedBatch, constraints: PreparedConstraints | None) -> Searched:
        """Run the search for another batch of the same size."""
        ids, lengths = padded(batch.prompts, self.prompts.device, length=batch.length)
        self.prompts.copy_(ids)
        self.lengths.copy_(lengths)
        if self.widths is not None:
            self.widths.copy_(torch.tensor(batch.widths))
        if self.constraints is not None:
            self.constraints.refill(constraints)
        self.replay()
        count, deviation = batch.num_requests, self.searched.deviation
        return Searched(
            [_first(beams, count) for beams in self.searched.history],
            self.searched.invalid[:count].clone(),
            None if deviation is None else deviation.clone(),
        )


class Graphs:
    """The captured searches of a retriever, one per size of batch, prompt, beams and rules.

    They share one pool of memory. If there are too many, the one that was not used for the longest time is released.
    With a capacity, versions of a live index share the graphs: these read a copy of the index, which is filled with
    the version that is searched.

    Attributes:
        captures: the number of captures so far.
        room: the least sizes of the rules of a batch.
        beam_widths: searches with other widths run with the next of these, if there is one.
    """

    def __init__(self, max_graphs: int = MAX_GRAPHS) -> None:
        self.captures, self.room, self._max_graphs = 0, Room(), max_graphs
        self.beam_widths: tuple[int, ...] = ()
        self._captured: OrderedDict[Hashable, Captured] = OrderedDict()
        self._state: Any = None
        # The index that the graphs read, and the one whose values it has.
        self._index: DeviceIndex | None = None
        self._source: DeviceIndex | None = None
        self._pool: Any = None
        # Recorded after the last search.
        self._done: Any = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._captured)

    def prepare(self, room: Room, beam_widths: Sequence[int], max_graphs: int) -> None:
        """Set the sizes that searches are padded to, and the number of graphs that are kept."""
        self.room, self.beam_widths, self._max_graphs = room, tuple(sorted(beam_widths)), max_graphs

    def run(
        self, search: ModelSearch, batch: PaddedBatch, beam_width: int, constraints: PreparedConstraints | None
    ) -> Searched:
        """Run a search by the graph of its size. The first search of a size captures the graph.

        Graphs of a model that has changed are captured again.

        Args:
            search: the model, the index and the options.
            batch: the prompts.
            beam_width: M.
            constraints: the rules of the batch.

        Returns:
            As `ModelSearch.run`, of the requests without copies.

        Raises:
            ArgumentError: as for `check_capture` and `check_one_device`.
        """
        check_capture(search)
        # A graph has one set of inputs and outputs, and all graphs share their memory.
        with self._lock, on_device(search.model.device):
            wait_for(self._done)
            index = self._index_of(search)
            key = (len(batch.prompts), batch.length, beam_width, batch.widths is None, _shapes(constraints))
            if key not in self._captured:
                self._captured[key] = self._capture(replace(search, device_index=index), batch, beam_width, constraints)
                self.captures += 1
            self._captured.move_to_end(key)
            while len(self._captured) > self._max_graphs:
                self._captured.popitem(last=False)
            searched = self._captured[key](batch, constraints)
            self._done = recorded()
            return searched

    def _index_of(self, search: ModelSearch) -> DeviceIndex:
        """The index that the graphs read, with the values of the searched one; graphs that do not fit are released."""
        assert search.model.probed is not None
        given = search.device_index
        state = (search.model.probed.key, capture_key(search.model.model), _options(search), given.capacity)
        fits = state == self._state and (given.capacity is not None or self._source is given)
        if not fits:
            check_one_device(search.model.model)
            self._captured.clear()
            self._index = given if given.capacity is None else deepcopy(given)
            self._source, self._state = given, state
        assert self._index is not None
        if self._source is not given:
            self._index.refill(given)
            self._source = given
        return self._index

    def _capture(
        self, search: ModelSearch, batch: PaddedBatch, beam_width: int, constraints: PreparedConstraints | None
    ) -> Captured:
        assert search.masking is not None
        masking, device = search.masking, search.model.device
        prompts, lengths = padded(batch.prompts, device, length=batch.length)
        widths = None if batch.widths is None else torch.tensor(batch.widths, device=device)
        static = None if constraints is None else constraints.copy()

        def run() -> Searched:
            decoder = TreeDecoder(search.model, masking, prompts, lengths, beam_width, search.num_read)
            return search.run(decoder, len(prompts), beam_width, static, widths=widths)

        if self._pool is None:
            self._pool = new_pool()
        return Captured(prompts, lengths, widths, static, *capture(run, self._pool))


def new_pool() -> Any:
    """The memory that graphs share: each writes its temporary results anew."""
    return torch.cuda.graph_pool_handle()


def on_device(device: torch.device) -> AbstractContextManager[Any]:
    """Make a CUDA device current: a capture contains only work on the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def recorded() -> Any:
    """An event after the work so far of this thread's stream; None without CUDA."""
    return torch.cuda.current_stream().record_event() if torch.cuda.is_available() else None


def wait_for(event: Any) -> None:
    """Let this thread's stream wait for an event, which another stream may have recorded."""
    if event is not None:
        event.wait()


def capture(run: Callable[[], Searched], pool: Any) -> tuple[Callable[[], object], Searched]:
    """Capture a function in a CUDA graph.

    Returns:
        A function that runs it again, and its result, which each run overwrites.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # What other threads do on the device meanwhile must not end the capture.
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        searched = run()
    return graph.replay, searched


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


def check_one_device(model: torch.nn.Module) -> None:
    """Check that a model computes on one device: a graph would not contain the work of the others.

    Raises:
        ArgumentError: its weights are on several devices.
    """
    devices = sorted({str(weight.device) for weight in model.parameters()})
    if len(devices) > 1:
        raise ArgumentError(
            f"cuda_graphs needs all weights of the model on one device; they are on {', '.join(devices)}. Load the "
            "model without a device_map of several devices, or leave cuda_graphs off."
        )


def bucket(batch_size: int, length: int) -> tuple[int, int]:
    """Compute the batch size and the prompt length that a search is padded to."""
    return power_of_two(batch_size), -(-length // PROMPT_STEP) * PROMPT_STEP


def _options(search: ModelSearch) -> tuple[Any, ...]:
    return search.normalize, search.temperature, search.length_penalty, search.kernel


def _shapes(constraints: PreparedConstraints | None) -> Hashable:
    """The shapes of the arrays of constraints."""
    if constraints is None:
        return None
    return tuple(
        None if array is None else tuple(array.shape) for level in constraints.levels for array in level.arrays
    )


def _first(beams: Beams, requests: int) -> Beams:
    """A copy of the beams of the first requests; the others are padding."""
    arrays = (beams.codes, beams.scores, beams.states, beams.parents, beams.code_scores)
    return Beams(*(None if array is None else array[:requests].clone() for array in arrays))
