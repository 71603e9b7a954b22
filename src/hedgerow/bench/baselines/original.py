"""The authors' own STATIC code, timed from outside: imported where installed, or from a folder given by path.

Its search is one function over all levels with the model inside, so only a whole decode can be timed, and only its
codes are returned. The fake model hands out the logits made before.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow.bench.arrays import Arrays
from hedgerow.bench.baselines.base import Found, Problem, Promise, Unavailable
from hedgerow.bench.baselines.static_published import LARGEST_HEAD, TOKENS_PER_BEAM


class OriginalStatic:
    """`static_decoding`'s loop, with its default of 30 tokens a beam. Valid, not exact; PyTorch and JAX."""

    name = "STATIC, authors' code"
    promise = Promise.VALID
    most_items = 20_000_000

    def __init__(self, problem: Problem, arrays: Arrays, folder: Path | None) -> None:
        if arrays.name == "numpy":
            raise Unavailable("it has no NumPy form")
        sizes = problem.index.codebook_sizes
        if len(sizes) < 3 or len(set(sizes)) > 1 or sizes[0] ** 2 > LARGEST_HEAD:
            raise Unavailable("its dense tables need three levels or more, of one codebook size, and to fit")
        builder = imported("static_decoding.csr_utils", folder)
        self.arrays, self.size, self.levels = arrays, sizes[0], len(sizes)
        pairs, rows, branches, *dense = builder.build_static_index(problem.sids.astype(np.int32), self.size)
        self.branches = tuple(int(branch) for branch in branches)
        self.nbytes = pairs.nbytes + rows.nbytes + sum(table.nbytes for table in dense)
        self.tables = [arrays.put(table) for table in (pairs, rows, *dense)]
        suffix, name = ("pt", "torch") if arrays.name == "torch" else ("jax", "jax")
        decoding = imported(f"static_decoding.decoding_{suffix}", folder)
        self.search = getattr(decoding, f"sparse_transition_{name}")

    def decode(self, logits: list[Any], beam_width: int) -> Any:
        """Returns its codes [B, M, L], for logits [B, m, C] a level in the backend's arrays."""
        if beam_width > self.size:
            raise Unavailable("it needs as many codes as beams")
        batch = logits[0].shape[0]
        shape = (batch, beam_width, min(TOKENS_PER_BEAM, self.size), 0, self.levels, self.size, self.branches)
        rows = [level.reshape(-1, 1, self.size) for level in logits]
        if self.arrays.name == "torch":
            return self.search(_Replay(rows), *shape, *self.tables, self.arrays.device)
        return self.search(_next_logits, tuple(rows), *shape, *self.tables)

    def found(self, codes: Any) -> Found:
        """Returns its codes; it tells no scores."""
        return Found(self.arrays.get(codes), None)


class _Replay:
    """Stands for the model: hands out the next level's logits at every call."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows = iter(rows)

    def __call__(self, _codes: Any) -> Any:
        return next(self.rows)


def _next_logits(_codes: Any, rows: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """Stands for the model in JAX: the logits left travel where it expects a random key."""
    return rows[0], rows[1:]


def imported(module: str, folder: Path | None) -> Any:
    """Returns a module of the authors' code, from `folder` where given.

    Raises:
        Unavailable: it is not importable.
    """
    if folder is not None and str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Unavailable(f"{module} is not importable ({error.name}); name its folder with --reference") from None
