"""Codebooks: trained codebooks that encode embeddings to codes and decode codes, with NumPy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hedgerow._arguments import check_choice, whole_number
from hedgerow._read_only import ReadOnlyArrays
from hedgerow.catalog.sids import MAX_CODEBOOK_SIZE, MAX_LEVELS
from hedgerow.errors import ArgumentError
from hedgerow.semantic.nearest import nearest
from hedgerow.semantic.statistics import TrainingStatistics
from hedgerow.semantic.vectors import LARGEST, as_array, as_embeddings

METHODS = ("residual", "product", "opq")
BLOCK = 1 << 16
# The largest length of a codeword, in lengths of the longest embedding.
MAX_RELATIVE_LENGTH = 4
# The largest difference of the length of a rotation's row from 1.
ROTATION_TOLERANCE = 0.01


@dataclass(frozen=True, eq=False, repr=False)
class Codebooks(ReadOnlyArrays):
    """The codebooks of a `Quantizer`, which documents the attributes and the errors."""

    method: str
    codebooks: tuple[np.ndarray, ...]
    codebook_sizes: tuple[int, ...]
    rotation: np.ndarray | None = None
    deduplication_codes: int | None = None
    training: TrainingStatistics | None = None
    text_columns: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_choice(self.method, "method", METHODS)
        codebooks, sizes = _checked_codebooks(self.codebooks, self.codebook_sizes)
        object.__setattr__(self, "codebooks", codebooks)
        object.__setattr__(self, "codebook_sizes", sizes)
        self._check_lengths()
        if (self.method == "opq") != (self.rotation is not None):
            raise ArgumentError(
                f"a rotation is required for method 'opq', and not allowed otherwise; got method {self.method!r} "
                f"{'without' if self.rotation is None else 'with'} a rotation."
            )
        if self.rotation is not None:
            object.__setattr__(self, "rotation", _checked_rotation(self.rotation, self.dim))
        if self.deduplication_codes is not None:
            size = whole_number(self.deduplication_codes, "deduplication_codes", 1, MAX_CODEBOOK_SIZE)
            object.__setattr__(self, "deduplication_codes", size)
            if len(sizes) == MAX_LEVELS:
                raise ArgumentError(
                    f"a SID has at most {MAX_LEVELS} codes, including the deduplication code; got {len(sizes)} "
                    "codebooks and deduplication_codes."
                )

    def _check_lengths(self) -> None:
        """Check that no codeword is longer than the codewords of valid embeddings can be."""
        limit = MAX_RELATIVE_LENGTH * LARGEST * self.dim**0.5
        for level, codebook in enumerate(self.codebooks):
            lengths = np.sqrt((codebook.astype(np.float64) ** 2).sum(1))
            if lengths.max() > limit:
                code = int(lengths.argmax())
                raise ArgumentError(
                    f"level {level}, code {code}: the codeword is {lengths[code]:.1e} long; the limit is {limit:.1e}. "
                    "Scale the embeddings down and train again."
                )

    @property
    def num_levels(self) -> int:
        """L, the number of codes of an embedding, without the deduplication code."""
        return len(self.codebooks)

    @property
    def dim(self) -> int:
        """D, the number of dimensions of an embedding."""
        width = self.codebooks[0].shape[1]
        return width if self.method == "residual" else width * self.num_levels

    def dimensions(self, level: int) -> slice:
        """The dimensions that a level encodes; with a rotation, of the rotated embeddings.

        Args:
            level: the number of the level.

        Examples:
            ```python
            import numpy as np
            import hedgerow as hr

            quantizer = hr.Quantizer("product", (np.zeros((4, 3)), np.zeros((4, 3))), (4, 4))
            assert quantizer.dimensions(1) == slice(3, 6)
            ```
        """
        width = self.codebooks[level].shape[1]
        return slice(width) if self.method == "residual" else slice(level * width, (level + 1) * width)

    def encode(self, embeddings: Any) -> np.ndarray:
        """Encode embeddings. The codes of a row do not depend on the other rows.

        Args:
            embeddings: [R, D] numbers.

        Returns:
            int32 [R, L].

        Raises:
            ArgumentError: `embeddings` is not a matrix of finite numbers with D columns.

        Examples:
            ```python
            import numpy as np
            import hedgerow as hr

            quantizer = hr.Quantizer("residual", (np.array([[0.0], [10.0]]), np.array([[-1.0], [1.0]])), (2, 2))
            assert quantizer.encode([[9.2], [0.7]]).tolist() == [[1, 0], [0, 1]]
            ```
        """
        vectors = as_embeddings(embeddings, dim=self.dim)
        codes = np.empty((len(vectors), self.num_levels), np.int32)
        for start in range(0, len(vectors), BLOCK):
            codes[start : start + BLOCK] = self._encode(vectors[start : start + BLOCK])
        return codes

    def _encode(self, vectors: np.ndarray) -> np.ndarray:
        if self.method != "residual":
            turned = vectors if self.rotation is None else rotated(vectors, self.rotation)
            slices = np.split(turned, self.num_levels, axis=1)
            pairs = zip(slices, self.codebooks, strict=True)
            return np.stack([nearest(np.ascontiguousarray(part), codebook) for part, codebook in pairs], axis=1)
        residuals, codes = vectors.copy(), []
        for codebook in self.codebooks:
            codes.append(nearest(residuals, codebook))
            residuals -= codebook[codes[-1]]
        return np.stack(codes, axis=1)

    def decode(self, codes: Any) -> np.ndarray:
        """Decode codes to approximate embeddings.

        Args:
            codes: [R, l] integers: the codes of l levels, 1 to L. Levels after l add nothing. A deduplication code is
                accepted, and adds nothing.

        Returns:
            float32 [R, D].

        Raises:
            ArgumentError: `codes` is not such a matrix, or a code is not in its codebook.

        Examples:
            ```python
            import numpy as np
            import hedgerow as hr

            quantizer = hr.Quantizer("residual", (np.array([[0.0], [10.0]]), np.array([[-1.0], [1.0]])), (2, 2))
            assert quantizer.decode([[1, 0]]).tolist() == [[9]]
            assert quantizer.decode([[1]]).tolist() == [[10]]
            ```
        """
        matrix = self._checked_codes(codes)
        vectors = np.zeros((len(matrix), self.dim), np.float32)
        for level, column in enumerate(matrix.T[: self.num_levels]):
            vectors[:, self.dimensions(level)] += self.codebooks[level][column]
        return vectors if self.rotation is None else vectors @ self.rotation

    def _checked_codes(self, codes: Any) -> np.ndarray:
        matrix = as_array(codes, "codes")
        width = self.num_levels + (self.deduplication_codes is not None)
        if matrix.ndim != 2 or matrix.dtype.kind not in "iu" or not 1 <= matrix.shape[1] <= width:
            raise ArgumentError(
                f"codes must be integers [items, 1 to {width}]; got {matrix.dtype} of shape {matrix.shape}."
            )
        sizes = [*map(len, self.codebooks), self.deduplication_codes or 0]
        for level, column in enumerate(matrix.T):
            size, kind = sizes[level], "trained" if level < self.num_levels else "deduplication"
            if len(column) and not (column.min() >= 0 and column.max() < size):
                row = int(np.argmax((column < 0) | (column >= size)))
                raise ArgumentError(
                    f"row {row}, level {level}: code {column[row]} is not one of the {size:,} {kind} codes."
                )
        return matrix

    def __repr__(self) -> str:
        sizes = f"codebook_sizes={list(self.codebook_sizes)}"
        last = "" if self.deduplication_codes is None else f", deduplication_codes={self.deduplication_codes}"
        return f"{type(self).__name__}(method={self.method!r}, dim={self.dim}, {sizes}{last})"


def rotated(vectors: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Rotate vectors float32 [R, D]. A row of the result does not depend on the other rows."""
    # The errors of float64 are far below the precision of the result.
    return (vectors.astype(np.float64) @ rotation.T.astype(np.float64)).astype(np.float32)


def _checked_codebooks(codebooks: Any, codebook_sizes: Any) -> tuple[tuple[np.ndarray, ...], tuple[int, ...]]:
    """Copies of the codebooks, read-only, and their sizes as integers."""
    try:
        codebooks, sizes = tuple(codebooks), tuple(codebook_sizes)
    except TypeError:
        raise ArgumentError("codebooks and codebook_sizes must be sequences with one entry per level.") from None
    if not 1 <= len(codebooks) == len(sizes) <= MAX_LEVELS:
        raise ArgumentError(
            f"a quantizer needs 1 to {MAX_LEVELS} codebooks, and one codebook size for each; got {len(codebooks)} "
            f"codebooks and {len(sizes)} sizes."
        )
    sizes = tuple(
        whole_number(size, f"level {level}: the codebook size", 1, MAX_CODEBOOK_SIZE)
        for level, size in enumerate(sizes)
    )
    copies = tuple(_copied(codebook, f"level {level}: the codebook") for level, codebook in enumerate(codebooks))
    for level, (codebook, size) in enumerate(zip(copies, sizes, strict=True)):
        fits = codebook.ndim == 2 and codebook.shape[1:] == copies[0].shape[1:] and codebook.shape[1] > 0
        if not fits or not 1 <= len(codebook) <= size or not np.isfinite(codebook).all():
            raise ArgumentError(
                f"level {level}: the codebook must be finite numbers [codes, dimensions], with 1 to {size:,} codes and "
                f"as many dimensions as at level 0; got shape {codebook.shape}."
            )
    return copies, sizes


def _checked_rotation(values: Any, dim: int) -> np.ndarray:
    """A copy of a rotation, read-only."""
    rotation = _copied(values, "the rotation")
    if rotation.shape != (dim, dim):
        raise ArgumentError(f"the rotation must be [{dim}, {dim}]; got shape {rotation.shape}.")
    lengths = np.sqrt((rotation.astype(np.float64) ** 2).sum(1))
    if not (np.abs(lengths - 1) < ROTATION_TOLERANCE).all():
        raise ArgumentError("the rotation must be orthonormal; the lengths of its rows are not 1.")
    return rotation


def _copied(values: Any, what: str) -> np.ndarray:
    """A copy as float32, read-only, so that later changes of the caller's array have no effect."""
    array = as_array(values, what)
    if array.dtype.kind not in "fiu":
        raise ArgumentError(f"{what} must be numbers, as float32; got an array of {array.dtype}.")
    with np.errstate(over="ignore"):
        copy = np.array(array, np.float32, order="C")
    copy.setflags(write=False)
    return copy
