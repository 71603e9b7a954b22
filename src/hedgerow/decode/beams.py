"""Beams: the state of a search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

DEAD = -1


@dataclass(frozen=True, eq=False, repr=False)
class Beams:
    """At most M beams for each of B requests, sorted by score, best first; a pytree in JAX and PyTorch.

    Dead beams fill the rows where the catalog allows fewer than M. They come last and have state -1, codes -1,
    score -inf and parent 0.

    Attributes:
        codes: [B, m, l] int32, the codes so far; of a ragged SID that has ended, each level's end code.
        scores: [B, m] float32, the sum of their log-probabilities.
        states: [B, m] int32, the node each beam is at (after the last level: the leaf).
        parents: [B, m] int32, which beam of the step before each one continues, for a caller that keeps a KV cache.
    """

    codes: Any
    scores: Any
    states: Any
    parents: Any

    @property
    def level(self) -> int:
        """l, the number of codes each beam has, which is the level that the next step decides."""
        return self.codes.shape[-1]

    @property
    def num_valid(self) -> Any:
        """[B] the number of live beams of each request."""
        return (self.states > DEAD).sum(-1)

    def __repr__(self) -> str:
        # The arrays may be a tracer's, or what a framework puts in their place; a look into them may wait.
        shape = tuple(getattr(self.codes, "shape", ()))
        if len(shape) != 3:
            return f"Beams({type(self.codes).__name__})"
        framework = type(self.codes).__module__.partition(".")[0].replace("jaxlib", "jax")
        return f"Beams(batch_size={shape[0]}, beams={shape[1]}, level={shape[2]}, {framework})"
