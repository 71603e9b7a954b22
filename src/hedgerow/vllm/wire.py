"""What goes between the API process and the engine's process: a request's rules, and its beams or an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hedgerow.decode.beams import Beams
from hedgerow.errors import ArgumentError, HedgerowError

# The key of our part of `PoolingParams.extra_kwargs`.
KEY = "hedgerow"
# Columns of an answer before those of the codes and of their scores: the state and the score. The first row has the
# size of the batch and the seconds of its search in their place.
STATE, SCORE, FIRST_CODE = 0, 1, 2


class EngineError(HedgerowError):
    """The engine could not answer a request."""


@dataclass(frozen=True, eq=False)
class Asked:
    """A request, checked by the API process, as the engine gets it beside the tokens of its prompt.

    Attributes:
        version: the number of the version of a live index; None if the index is not live.
        beam_width: M.
        items: the name of the stored set of the items that may be returned; None: all.
        excluded: rows [R] int64 of the index that are not returned.
        candidates: rows [R] int64 of the index that may be returned; None: all.
    """

    version: int | None
    beam_width: int
    items: str | None
    excluded: np.ndarray
    candidates: np.ndarray | None

    def pack(self) -> dict[str, Any]:
        """The request as values that MessagePack has."""
        return {
            "version": self.version,
            "beam_width": self.beam_width,
            "items": self.items,
            "excluded": self.excluded.astype("<i8").tobytes(),
            "candidates": None if self.candidates is None else self.candidates.astype("<i8").tobytes(),
        }

    @staticmethod
    def unpack(packed: Any) -> Asked:
        """The request of packed values.

        Raises:
            ArgumentError: a value is missing or of another type.
        """
        if not isinstance(packed, Mapping):
            raise ArgumentError(f"a request must be a mapping; got {type(packed).__name__}.")
        version, width, items = (packed.get(name) for name in ("version", "beam_width", "items"))
        if not isinstance(version, int | None) or not isinstance(items, str | None):
            raise ArgumentError("version must be an integer or None, and items a string or None.")
        if not isinstance(width, int) or width < 1:
            raise ArgumentError(f"beam_width must be an integer of at least 1; got {width!r}.")
        candidates = packed.get("candidates")
        return Asked(
            version,
            width,
            items,
            _rows("excluded", packed.get("excluded")),
            None if candidates is None else _rows("candidates", candidates),
        )


def _rows(name: str, value: Any) -> np.ndarray:
    if not isinstance(value, bytes) or len(value) % 8:
        raise ArgumentError(f"{name} must be the bytes of int64 rows; got {type(value).__name__}.")
    return np.frombuffer(value, "<i8").astype(np.int64)


def pack_answer(beams: Beams, request: int, beam_width: int, *, batch_size: int, seconds: float) -> Tensor:
    """The answer of a request: float64 [1 + M, 2 + 2L] on the device of the beams, which holds all values exactly.

    Args:
        beams: the beams of a batch after the last level, in PyTorch.
        request: the position of the request in the batch.
        beam_width: M, the number of beams of this request.
        batch_size: the number of requests of the batch.
        seconds: the time of its search.
    """
    parts = (beams.states, beams.scores, beams.codes, beams.code_scores)
    columns = torch.column_stack([part[request, :beam_width].double() for part in parts])
    first = torch.zeros_like(columns[:1])
    first[0, STATE], first[0, SCORE] = batch_size, seconds
    return torch.cat([first, columns])


def pack_error(message: str) -> Tensor:
    """The answer of a request that failed: float64 [n], the bytes of the message."""
    return torch.tensor(list(message.encode()), dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Found:
    """What the engine found for a request.

    Attributes:
        beams: the beams [1, M] after the last level.
        batch_size: the number of requests that were searched together.
        seconds: the time of the search.
    """

    beams: Beams
    batch_size: int
    seconds: float


def unpack_answer(answer: Tensor) -> Found:
    """The beams of an answer.

    Raises:
        EngineError: the engine could not answer the request.
    """
    if answer.ndim == 1:
        message = bytes(answer.to(torch.uint8).tolist()).decode(errors="replace")
        raise EngineError(message or "the engine gave no answer.")
    values = answer.cpu().numpy()
    columns = values[None, 1:]
    codes, code_scores = np.split(columns[..., FIRST_CODE:], 2, axis=-1)
    states = columns[..., STATE].astype(np.int32)
    beams = Beams(
        codes.astype(np.int32),
        columns[..., SCORE].astype(np.float32),
        states,
        np.zeros_like(states),
        code_scores.astype(np.float32),
    )
    return Found(beams, int(values[0, STATE]), float(values[0, SCORE]))
