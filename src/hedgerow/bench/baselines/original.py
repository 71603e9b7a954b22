"""The authors' implementation of STATIC: imported if it is installed, or from a folder.

Its search is one function over all levels that calls the model, so only a whole decode can be timed, and it returns
only codes. A stub returns the prepared logits in place of the model.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow.bench.arrays import Arrays
from hedgerow.bench.baselines.base import Problem, Promise, SearchResult, Unavailable
from hedgerow.bench.baselines.static_published import LARGEST_HEAD, TOKENS_PER_BEAM


class OriginalStatic:
    """The loop of `static_decoding`, with its default of 30 tokens per beam. Valid, not exact; PyTorch and JAX."""

    name = "STATIC, authors' code"
    promise = Promise.VALID
    max_items = 20_000_000

    def __init__(self, problem: Problem, arrays: Arrays, folder: Path | None) -> None:
        if arrays.name == "numpy":
            raise Unavailable("it does not support NumPy")
        sizes = problem.index.codebook_sizes
        if len(sizes) < 3 or len(set(sizes)) > 1 or sizes[0] ** 2 > LARGEST_HEAD:
            raise Unavailable(
                "its dense tables need at least three levels of one codebook size, and must fit in memory"
            )
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
        """Run all levels and return the codes [B, M, L]. `logits` has an array [B, m, C] of the backend per level."""
        if beam_width > self.size:
            raise Unavailable("it needs at least as many codes as beams")
        batch = logits[0].shape[0]
        shape = (batch, beam_width, min(TOKENS_PER_BEAM, self.size), 0, self.levels, self.size, self.branches)
        rows = [level.reshape(-1, 1, self.size) for level in logits]
        if self.arrays.name == "torch":
            return self.search(_Replay(rows), *shape, *self.tables, self.arrays.device)
        return self.search(_next_logits, tuple(rows), *shape, *self.tables)

    def result(self, codes: Any) -> SearchResult:
        """The result, without scores."""
        return SearchResult(self.arrays.get(codes), None)


class _Replay:
    """Replaces the model: every call returns the logits of the next level."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows = iter(rows)

    def __call__(self, _codes: Any) -> Any:
        return next(self.rows)


def _next_logits(_codes: Any, rows: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """Replaces the model in JAX: the remaining logits are passed in place of the random key."""
    return rows[0], rows[1:]


def imported(module: str, folder: Path | None) -> Any:
    """Import a module of the authors' code.

    Args:
        module: name of the module.
        folder: the folder that contains the package. None: it must be installed.

    Raises:
        Unavailable: the module cannot be imported.
    """
    if folder is not None and str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Unavailable(f"{module} cannot be imported ({error.name}); pass its folder with --reference") from None
