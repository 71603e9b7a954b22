"""Beams: the state of a search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

DEAD = -1
# Beams are numbered by int32.
MAX_BEAMS = 2**31 - 1


@dataclass(frozen=True, eq=False, repr=False)
class Beams:
    """At most M beams for each of B requests, best score first. A pytree in JAX and PyTorch.

    If the catalog allows fewer than M beams, the remaining ones are dead. Dead beams come last. They have state -1,
    codes -1, score -inf and parent 0.

    Attributes:
        codes: [B, m, l] int32, the codes of each beam. A ragged SID that has ended has the end code of every further
            level.
        scores: [B, m] float32, the sum of the log-probabilities of the codes.
        states: [B, m] int32, the node that each beam is at; the leaf after the last level.
        parents: [B, m] int32, the beam of the previous step that each beam continues; use it to reorder a KV cache.
        code_scores: [B, m, l] float32, the log-probability of each code, as the difference of two scores; -inf for dead
            beams. `beam_search` and `Retriever` compute it at the end of a search; `step` does not: None.

    Examples:
        ```python
        import numpy as np
        import hedgerow as hr

        index = hr.build_index(hr.Catalog([[0, 1], [2, 0]]))
        beams = hr.step(index, hr.init_beams(index, batch_size=1), np.zeros((1, 1, 3)), beam_width=4)
        assert beams.level == 1
        assert beams.num_valid.tolist() == [2]
        assert beams.codes[0, 2:].tolist() == [[-1], [-1]]
        ```
    """

    codes: Any
    scores: Any
    states: Any
    parents: Any
    code_scores: Any = None

    @property
    def level(self) -> int:
        """Number of codes of each beam: the level l that the next step decides."""
        return self.codes.shape[-1]

    @property
    def num_valid(self) -> Any:
        """[B] number of live beams of each request."""
        return (self.states > DEAD).sum(-1)

    def __repr__(self) -> str:
        # Shapes only: codes can be a tracer, and reading an array of an accelerator would wait for it.
        shape = tuple(getattr(self.codes, "shape", ()))
        if len(shape) != 3:
            return f"Beams({type(self.codes).__name__})"
        framework = type(self.codes).__module__.partition(".")[0].replace("jaxlib", "jax")
        return f"Beams(batch_size={shape[0]}, beams={shape[1]}, level={shape[2]}, {framework})"
