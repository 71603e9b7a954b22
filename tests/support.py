"""Helpers of several test modules: kernels, random catalogs, and a model that is a pure function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

import hedgerow as hr
from hedgerow._compiled import native
from hedgerow.decode.ops import to_numpy
from hedgerow.index.compact import Coding, code_bits

BACKENDS = ("numpy", "torch", "jax")
# The kernels of the contract suite: the backend of their arrays, and their name.
KERNELS = ("numpy-array", "torch-array", "jax-array", "numpy-native", "torch-native")


def require(kernel: str) -> None:
    """Skip the test if a package of a kernel of KERNELS is not installed."""
    backend, name = kernel.split("-")
    pytest.importorskip(backend)
    if name == "native" and native is None:
        pytest.skip("hedgerow was built without a C compiler")


def lay_out(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the layout of every index that is built. "split": compact, and the codes of every level are split."""

    def split_coding(parents: int, nodes: int, codebook_size: int) -> Coding:
        width = code_bits(codebook_size)
        return Coding("elias-fano", width // 2) if nodes else Coding("sparse" if parents else "unary", width)

    if layout != "plain":
        monkeypatch.setattr(hr, "build_index", partial(hr.build_index, layout="compact"))
    if layout == "split":
        monkeypatch.setattr("hedgerow.index.compact.coding_of", split_coding)


def array_of(backend: str, array: np.ndarray) -> Any:
    """Convert a NumPy array to a backend."""
    if backend == "torch":
        return pytest.importorskip("torch").from_numpy(array)
    if backend == "jax":
        return pytest.importorskip("jax.numpy").asarray(array)
    return array


def stepper(backend: str, kernel: Any = "auto") -> Callable[..., hr.Beams]:
    """hr.step as users run it: jitted in JAX."""
    step = partial(hr.step, kernel=kernel)
    if backend != "jax":
        return step
    jax = pytest.importorskip("jax")
    return jax.jit(step, static_argnames=("beam_width", "normalize", "temperature"))


@dataclass
class FakeModel:
    """Random float32 logits that depend on the request and the prefix alone, and so are equal for every backend."""

    sizes: tuple[int, ...]
    seed: int = 0
    cache: dict[tuple, np.ndarray] = field(default_factory=dict)

    def logits_of(self, request: int) -> Callable[[tuple[int, ...]], list[float]]:
        return lambda prefix: self._logits(request, prefix).tolist()

    def _logits(self, request: int, prefix: tuple[int, ...]) -> np.ndarray:
        key = (request, *prefix)
        if key not in self.cache:
            rng = np.random.default_rng((self.seed, *key))
            self.cache[key] = rng.normal(0, 3, self.sizes[len(prefix)]).astype(np.float32)
        return self.cache[key]

    def __call__(self, beams: hr.Beams) -> np.ndarray:
        codes = to_numpy(beams.codes)
        batch, width, level = codes.shape
        # NaN for dead beams, whose logits are ignored.
        logits = np.full((batch, width, self.sizes[level]), np.nan, np.float32)
        for b, m in zip(*np.nonzero(to_numpy(beams.states) >= 0), strict=True):
            logits[b, m] = self._logits(int(b), tuple(codes[b, m].tolist()))
        return logits


def search(
    index: hr.TrieIndex,
    kernel: str,
    model: FakeModel,
    *,
    batch_size: int,
    constraints: Any = None,
    exclude: Any = None,
    **options: Any,
) -> hr.Beams:
    """Run a beam search with a kernel of KERNELS, or with the automatic choice of a backend."""
    backend, _, name = kernel.partition("-")
    device_index = index.to(backend)
    options["constraints"] = hr.prepare_constraints(device_index, batch_size, constraints=constraints, exclude=exclude)
    step = stepper(backend, name or "auto")
    beams = hr.init_beams(device_index, batch_size)
    for _ in range(index.num_levels):
        beams = step(device_index, beams, array_of(backend, model(beams)), **options)
    return beams


def dense_levels_of(choice: str, num_levels: int) -> Any:
    """The argument `dense_levels` for "auto", "all" or "none"."""
    return {"auto": "auto", "all": range(num_levels), "none": ()}[choice]


@st.composite
def catalogs(draw: st.DrawFn) -> hr.Catalog:
    """Random catalogs: one item, chains, one node with most items, collisions, codebooks of 1, all representations."""
    levels = draw(st.integers(1, 5))
    sizes = tuple(draw(st.sampled_from([1, 2, 3, 5, 8, 31, 32, 33, 65])) for _ in range(levels))
    items = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    sids = np.stack([rng.integers(0, size, items) for size in sizes], axis=1)
    shape = draw(st.sampled_from(["random", "chain", "fat node", "full head", "collisions"]))
    if shape == "chain":
        sids[:, : levels - 1] = sids[0, : levels - 1]
    elif shape == "fat node":
        fat = rng.random(items) < 0.8
        sids[fat, : levels - 1] = sids[0, : levels - 1]
    elif shape == "full head":
        sids[:, 0] = np.arange(items) % sizes[0]
    elif shape == "collisions":
        sids = sids[rng.integers(0, max(1, items // 4), items)]
    return hr.Catalog(sids, codebook_sizes=sizes)
