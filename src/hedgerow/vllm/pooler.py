"""BeamPooler: when the prefill of prompts is done, it searches the index over their keys and values on the spot."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from vllm.logger import init_logger  # pyright: ignore[reportMissingImports]
from vllm.model_executor.layers.pooler.abstract import Pooler  # pyright: ignore[reportMissingImports]

from hedgerow.errors import ArgumentError
from hedgerow.index.bits import power_of_two
from hedgerow.vllm.engine import Batch, EngineSearch
from hedgerow.vllm.wire import KEY, Asked, pack_error

logger = init_logger(__name__)
INTERNAL = "an internal error of the search; the log of vLLM has it."


class BeamPooler(Pooler):
    """Answers finished prompts with the beams of their searches.

    An exception in a pooler ends the engine for all clients, so each request gets its beams or an error.

    Args:
        model: the model, whose `take_metadata` gives what vLLM's attention got for the batch.
        search: searches the index with the model.
    """

    def __init__(self, model: Any, search: EngineSearch) -> None:
        super().__init__()
        # Not as modules: the model contains the pooler.
        self.__dict__.update(model=model, search=search)

    def get_supported_tasks(self) -> set[str]:
        """The task of vLLM that requests name."""
        return {"embed"}

    def forward(self, hidden_states: Tensor, pooling_metadata: Any) -> list[Tensor]:
        """The answers of the requests of a batch; an empty tensor for prompts that are not finished or not ours."""
        answers = [hidden_states.new_zeros(0, dtype=torch.float64)] * len(pooling_metadata.pooling_params)
        metadata = self.model.take_metadata()
        asked: dict[int, Any] = {}
        try:
            finished = pooling_metadata.get_pooling_cursor().get_finished_mask()
            given = [(params.extra_kwargs or {}).get(KEY) for params in pooling_metadata.pooling_params]
            asked = {row: given[row] for row, done in enumerate(finished) if done and given[row] is not None}
            if asked:
                for row, answer in self._answers(hidden_states, pooling_metadata, metadata, asked):
                    answers[row] = answer
        except Exception as error:
            for row in asked:
                answers[row] = _failed(error)
        return answers

    def _answers(
        self, states: Tensor, pooling_metadata: Any, metadata: Any, asked: Mapping[int, Any]
    ) -> Iterator[tuple[int, Tensor]]:
        """The answers of the rows that ask."""
        if not isinstance(metadata, Mapping):
            raise ArgumentError(
                "vLLM ran the model without the metadata of its attention, as full CUDA graphs and microbatches do. "
                "Start it with -cc.cudagraph_mode=PIECEWISE, or with --enforce-eager."
            )
        cursor = pooling_metadata.get_pooling_cursor()
        lengths, last = cursor.prompt_lens_cpu.tolist(), cursor.last_token_indices_gpu
        groups: dict[Hashable, dict[int, Asked]] = {}
        for row, packed in asked.items():
            try:
                request = Asked.unpack(packed)
            except Exception as error:
                yield row, _failed(error)
                continue
            groups.setdefault(_group(row, request), {})[row] = request
        for requests in groups.values():
            width = max(request.beam_width for request in requests.values())
            for rows in _parts(list(requests), self.search.batch_size(width)):

                def answered(rows: Sequence[int], requests: dict[int, Asked] = requests) -> list[Tensor]:
                    batch = Batch(
                        [requests[row] for row in rows],
                        states[last[torch.tensor(rows, device=last.device)]],
                        metadata,
                        list(rows),
                        [lengths[row] for row in rows],
                    )
                    return self.search.answers(batch)

                yield from _each(rows, answered)


def _each(rows: Sequence[int], answered: Any) -> Iterator[tuple[int, Tensor]]:
    """The answers of rows together. If that fails, each row is answered alone, and gets its own error."""
    try:
        yield from zip(rows, answered(rows), strict=True)
    except Exception as error:
        if len(rows) == 1:
            yield rows[0], _failed(error)
            return
        for row in rows:
            yield from _each([row], answered)


def _failed(error: Exception) -> Tensor:
    """The answer of a request that failed. Errors that are not about the request are logged."""
    if isinstance(error, ArgumentError):
        return pack_error(str(error))
    logger.error("hedgerow: %s", error, exc_info=error)
    return pack_error(INTERNAL)


def _group(row: int, request: Asked) -> Hashable:
    """What requests that are searched together have in common. Each list of candidates is an index of its own."""
    alone = row if request.candidates is not None else None
    return alone, request.version, power_of_two(request.beam_width)


def _parts(rows: list[int], size: int) -> list[list[int]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
