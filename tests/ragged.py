"""Ragged SIDs made by hypothesis, and by hand what the oracle and an index have to say of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

import hedgerow as hr

Sid = tuple[int, ...]


@dataclass(frozen=True)
class Ragged:
    """SIDs of different lengths, and the codebooks they are from, without ends."""

    sids: list[Sid]
    sizes: tuple[int, ...]

    @property
    def catalog(self) -> hr.Catalog:
        return hr.Catalog(self.sids, codebook_sizes=self.sizes, ragged=True)

    @property
    def padded(self) -> list[list[int]]:
        return [padded(sid, len(self.sizes)) for sid in self.sids]

    def ends(self) -> tuple[int | None, ...]:
        return (None, *self.sizes[1:])

    def as_codes(self, sid: Sid) -> Sid:
        """The SID as beams have it: END from its end on."""
        return (*sid, *self.sizes[len(sid) :])


def padded(sid: Sid, levels: int) -> list[int]:
    return [*sid, *[-1] * (levels - len(sid))]


@st.composite
def ragged(draw: st.DrawFn) -> Ragged:
    """Prefixes of each other, one item, one level, all of one length, collisions, codebooks of 1, fat nodes."""
    levels = draw(st.integers(1, 5))
    sizes = tuple(draw(st.sampled_from([1, 2, 3, 7, 31, 32, 33])) for _ in range(levels))
    items = draw(st.sampled_from([1, 2, 5, 20, 60]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.sampled_from(["random", "prefixes", "one length", "collisions", "chain"]))
    rows = [tuple(int(rng.integers(size)) for size in sizes) for _ in range(items)]
    lengths = rng.integers(1, levels + 1, items)
    if shape == "chain":
        rows = [(*rows[0][:-1], row[-1]) for row in rows]
    if shape == "one length":
        lengths[:] = levels
    sids = [row[:length] for row, length in zip(rows, lengths, strict=True)]
    if shape == "prefixes":
        sids = [sid[:depth] for sid in sids for depth in range(1, len(sid) + 1)]
    if shape == "collisions":
        sids = [sids[at] for at in rng.integers(0, max(1, items // 4), items)]
    return Ragged(sids, sizes)


def logits_and_end(logits_of: Callable[[Sid], list[float]]) -> tuple[Callable, Callable]:
    """A model of codes and ends, whose last logit from level 1 on is the end's, as the oracle takes it."""

    def codes_alone(prefix: Sid) -> list[float]:
        return logits_of(prefix)[:-1] if prefix else logits_of(prefix)

    return codes_alone, lambda prefix: logits_of(prefix)[-1]
