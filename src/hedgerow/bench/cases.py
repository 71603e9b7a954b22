"""The sizes at which results are published: one list, shared by the tests and the benchmarks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

SEED = 20_260_222
CHUNK = 1 << 22


@dataclass(frozen=True)
class Case:
    """One shape of a search over a catalog of uniformly random SIDs.

    Attributes:
        name: name of the case in tables.
        batch: B, the number of requests.
        beam_width: M.
        levels: L.
        codebook_size: C, the same for every level.
        items: N.
        seed: seed of the catalog and of the logits.
    """

    name: str
    batch: int
    beam_width: int
    levels: int
    codebook_size: int
    items: int
    seed: int = SEED

    def of(self, **changes: int) -> Case:
        """A copy of this case with other sizes."""
        return replace(self, **changes)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """The codebook size of each level."""
        return (self.codebook_size,) * self.levels

    def rows(self, level: int) -> int:
        """Number of rows of the logits of a level: one beam per request before level 0, M after it."""
        return self.batch * (1 if level == 0 else self.beam_width)

    def logit_bytes(self, level: int) -> int:
        """Bytes of the float32 logits of a level, which any step that normalises them must read."""
        return self.rows(level) * self.codebook_size * 4


PAPER = Case("paper", batch=2, beam_width=70, levels=8, codebook_size=2048, items=20_000_000)
ONEREC = Case("onerec", batch=1, beam_width=50, levels=3, codebook_size=8192, items=1_500_000)
COLD = Case("cold", batch=16, beam_width=20, levels=4, codebook_size=256, items=12_000)
BRANCH = Case("branch", batch=2, beam_width=1, levels=8, codebook_size=2048, items=1_000_000)

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
CODEBOOK_SIZES = (256, 512, 1024, 2048, 4096, 8192)
CODEBOOK_SIZES_QUICK = (256, 1024, 4096)
BRANCH_FACTORS = tuple(2**exponent for exponent in range(1, 19))
BRANCH_FACTORS_QUICK = (2, 16, 128, 1024, 8192, 65536)


def sids_of(case: Case) -> np.ndarray:
    """SIDs [N, L] of a case: uniformly random, unsorted, in the narrowest dtype; the same on every machine."""
    rng = np.random.default_rng((case.seed, case.items, case.levels, case.codebook_size))
    sids = np.empty((case.items, case.levels), np.min_scalar_type(case.codebook_size - 1), order="F")
    for level in range(case.levels):
        for start in range(0, case.items, CHUNK):
            block = sids[start : start + CHUNK, level]
            block[:] = rng.integers(0, case.codebook_size, len(block), dtype=sids.dtype)
    return sids


def logits_of(case: Case) -> list[np.ndarray]:
    """Logits [B, m, C] float32 of each level, in place of a model's: standard normal, the same for every method.

    They depend on the rank of a beam, not on its prefix, so they are computed before the measurement. The measured
    time is that of the constraint and the selection.
    """
    rng = np.random.default_rng((case.seed, 1))
    widths = [1] + [case.beam_width] * (case.levels - 1)
    return [rng.standard_normal((case.batch, width, case.codebook_size), np.float32) for width in widths]


def logits_after(codes: np.ndarray, level_logits: np.ndarray) -> np.ndarray:
    """Logits [B, m, C] for beams with `codes` [B, m, l]: rows of `level_logits`, selected by prefix, not by rank.

    Methods may rank two beams of nearly equal scores differently. With these logits, the rest of the search does not
    depend on the rank.
    """
    multipliers = np.arange(1, codes.shape[-1] + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) | np.uint64(1)
    mixed = (codes.astype(np.int64).view(np.uint64) * multipliers).sum(-1, dtype=np.uint64)
    rows = (mixed >> np.uint64(32)) % np.uint64(level_logits.shape[1])
    return level_logits[np.arange(len(codes))[:, None], rows.astype(np.int64)]
