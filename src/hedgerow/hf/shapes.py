"""Shapes: the sizes of the traffic that a retriever is warmed up for."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

from hedgerow._arguments import whole_number
from hedgerow.decode.prepare import MIN_DEAD_NODES, Room
from hedgerow.errors import ArgumentError
from hedgerow.hf.graphs import PROMPT_STEP, bucket


@dataclass(frozen=True)
class Shapes:
    """The sizes of the traffic that `Retriever.warm_up` prepares a retriever for.

    Attributes:
        beam_widths: the numbers of beams M that requests have.
        batch_size: the largest number of requests in a batch.
        prompt_length: the largest number of tokens of a prompt, with the begin delimiter.
        sets: the largest number of distinct constraint sets in a batch; 0: requests have no sets.
        excluded: the largest number of excluded items of a request; 0: requests exclude none.
        candidates: whether requests have candidates.

    Raises:
        ArgumentError: a size is not an integer, or too small.

    Examples:
        ```python
        from hedgerow.hf import Shapes

        shapes = Shapes(beam_widths=(50, 128), batch_size=32, prompt_length=256, sets=8, excluded=200)
        assert shapes.beam_widths == (50, 128)
        ```
    """

    beam_widths: tuple[int, ...] = (50,)
    batch_size: int = 1
    prompt_length: int = 64
    sets: int = 1
    excluded: int = 0
    candidates: bool = False

    def __post_init__(self) -> None:
        widths: Any = self.beam_widths
        if isinstance(widths, str) or not hasattr(widths, "__iter__") or not tuple(widths):
            raise ArgumentError(f"beam_widths must be a list of at least one beam width; got {widths!r}.")
        object.__setattr__(self, "beam_widths", tuple(whole_number(width, "beam_widths") for width in widths))
        for name in ("batch_size", "prompt_length"):
            whole_number(getattr(self, name), name)
        for name in ("sets", "excluded"):
            whole_number(getattr(self, name), name, least=0)

    @property
    def room(self) -> Room:
        """The sizes that the rules of a batch are padded to."""
        return Room(max(1, min(self.sets, self.batch_size)), max(MIN_DEAD_NODES, self.excluded))

    @property
    def rules(self) -> list[tuple[bool, bool]]:
        """Whether a batch has sets, and whether it has exclusions: all combinations."""
        return list(product((False, True) if self.sets else (False,), (False, True) if self.excluded else (False,)))

    def sizes(self) -> list[tuple[int, int]]:
        """The sizes of batches and prompts that captured searches are padded to, the largest first."""
        largest, longest = bucket(self.batch_size, self.prompt_length)
        batch_sizes = [2**power for power in range(largest.bit_length())]
        return list(product(batch_sizes[::-1], range(longest, 0, -PROMPT_STEP)))
