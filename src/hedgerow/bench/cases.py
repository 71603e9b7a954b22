"""The shapes that claims are made at: one list, shared by the tests and the benchmarks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

SEED = 20_260_222
CHUNK = 1 << 22


@dataclass(frozen=True)
class Case:
    """One shape of a search over a catalog of uniformly random SIDs.

    Attributes:
        name: what tables call it.
        batch: B, the requests.
        beam_width: M.
        levels: L.
        codebook: C, the same for every level.
        items: N.
        seed: makes the catalog and the logits.
    """

    name: str
    batch: int
    beam_width: int
    levels: int
    codebook: int
    items: int
    seed: int = SEED

    def of(self, **changes: int) -> Case:
        """Returns this case with some of its numbers changed."""
        return replace(self, **changes)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Codes per level."""
        return (self.codebook,) * self.levels

    def rows(self, level: int) -> int:
        """Returns the rows of logits of a level: one beam a request before level 0, M after it."""
        return self.batch * (1 if level == 0 else self.beam_width)

    def logit_bytes(self, level: int) -> int:
        """Returns the bytes of a level's float32 logits: what any step that normalises them must read."""
        return self.rows(level) * self.codebook * 4


PAPER = Case("paper", batch=2, beam_width=70, levels=8, codebook=2048, items=20_000_000)
ONEREC = Case("onerec", batch=1, beam_width=50, levels=3, codebook=8192, items=1_500_000)
COLD = Case("cold", batch=16, beam_width=20, levels=4, codebook=256, items=12_000)
BRANCH = Case("branch", batch=2, beam_width=1, levels=8, codebook=2048, items=1_000_000)

CASES = {
    case.name: case
    for case in (
        PAPER,
        *(
            replace(ONEREC, name=f"onerec-{batch}x{width}", batch=batch, beam_width=width)
            for batch in (1, 8)
            for width in (50, 128, 256, 512)
        ),
        COLD,
        BRANCH,
    )
}

SCALE_ITEMS = (100_000, 1_000_000, 10_000_000, 100_000_000)
SCALE_ITEMS_QUICK = (10_000, 100_000, 1_000_000)
CODEBOOKS = (256, 512, 1024, 2048, 4096, 8192)
CODEBOOKS_QUICK = (256, 1024, 4096)
BRANCHES = tuple(2**exponent for exponent in range(1, 19))
BRANCHES_QUICK = (2, 16, 128, 1024, 8192, 65536)


def sids_of(case: Case) -> np.ndarray:
    """Returns the SIDs [N, L] of a case: uniformly random, unsorted, in the narrowest type; the same on any machine."""
    rng = np.random.default_rng((case.seed, case.items, case.levels, case.codebook))
    sids = np.empty((case.items, case.levels), np.min_scalar_type(case.codebook - 1), order="F")
    for level in range(case.levels):
        for first in range(0, case.items, CHUNK):
            block = sids[first : first + CHUNK, level]
            block[:] = rng.integers(0, case.codebook, len(block), dtype=sids.dtype)
    return sids


def logits_of(case: Case) -> list[np.ndarray]:
    """Returns the fake model's logits, [B, m, C] float32 a level: standard normal, the same for every method.

    They depend on a beam's rank, not on its prefix, so that no method waits for a model; what is timed is the
    constraint and the selection.
    """
    rng = np.random.default_rng((case.seed, 1))
    widths = [1] + [case.beam_width] * (case.levels - 1)
    return [rng.standard_normal((case.batch, width, case.codebook), np.float32) for width in widths]


def logits_after(codes: np.ndarray, level_logits: np.ndarray) -> np.ndarray:
    """Returns logits [B, m, C] for beams with `codes` [B, m, l]: rows of the level's, chosen by prefix and not by rank.

    Two beams of one score, to the last bit or nearly, may have either rank; this way nothing else depends on it.
    """
    multipliers = np.arange(1, codes.shape[-1] + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) | np.uint64(1)
    mixed = (codes.astype(np.int64).view(np.uint64) * multipliers).sum(-1, dtype=np.uint64)
    rows = (mixed >> np.uint64(32)) % np.uint64(level_logits.shape[1])
    return level_logits[np.arange(len(codes))[:, None], rows.astype(np.int64)]
