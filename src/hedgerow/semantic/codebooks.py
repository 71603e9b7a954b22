"""Codebooks: from embeddings to codes and back, with NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hedgerow._arguments import check_choice, whole_number
from hedgerow.catalog.sids import MAX_CODEBOOK_SIZE, MAX_LEVELS
from hedgerow.errors import ArgumentError
from hedgerow.semantic.nearest import nearest
from hedgerow.semantic.vectors import LARGEST, as_array, as_embeddings

METHODS = ("residual", "product", "opq")
BLOCK = 1 << 16
# How many times as long as an embedding a codeword may be; how far from 1 a row of a rotation.
LONGER = 4
ROUGHLY = 0.01


@dataclass(frozen=True, eq=False, repr=False)
class Codebooks:
    """What makes L codes of an embedding of D numbers, and needs NumPy alone to do so.

    `hedgerow.semantic_ids` trains one. New items are encoded by it as they are, without training: that is what an item
    that no user has seen yet needs.

    Attributes:
        method: "residual": level l encodes what the levels before it have left, so that a prefix is a coarse SID;
            "product": level l encodes the l-th slice of the dimensions; "opq": the same, after a rotation.
        codebooks: L arrays float32 [K_l, D] ("residual") or [K_l, D / L]; read-only.
        codebook_sizes: L ints, the codes a level may have: K_l, or more where there were too few items to train them.
        rotation: float32 [D, D], orthonormal, for "opq"; else None.
        deduplication_codes: how many codes the last level has that keeps apart the items with the same L codes; None where
            there is no such level.

    Raises:
        ArgumentError: these do not fit each other.
    """

    method: str
    codebooks: tuple[np.ndarray, ...]
    codebook_sizes: tuple[int, ...]
    rotation: np.ndarray | None = None
    deduplication_codes: int | None = None

    def __post_init__(self) -> None:
        check_choice(self.method, "method", METHODS)
        try:
            books, sizes = tuple(self.codebooks), tuple(self.codebook_sizes)
        except TypeError:
            raise ArgumentError("codebooks and codebook_sizes must be sequences, one of each a level.") from None
        if not 1 <= len(books) == len(sizes) <= MAX_LEVELS:
            raise ArgumentError("a quantizer has 1 to 255 codebooks, and as many codebook_sizes.")
        sizes = tuple(
            whole_number(size, f"level {level}: codebook_sizes", 1, MAX_CODEBOOK_SIZE)
            for level, size in enumerate(sizes)
        )
        codebooks = tuple(_own(book, f"level {level}: the codebook") for level, book in enumerate(books))
        for level, (codebook, size) in enumerate(zip(codebooks, sizes, strict=True)):
            fits = codebook.ndim == 2 and codebook.shape[1:] == codebooks[0].shape[1:] and codebook.shape[1] > 0
            if not fits or not 1 <= len(codebook) <= size <= MAX_CODEBOOK_SIZE or not np.isfinite(codebook).all():
                raise ArgumentError(
                    f"level {level}: expected a finite codebook [K, D], K from 1 to the codebook's size, D as at level "
                    f"0; got shape {codebook.shape} and size {size}."
                )
        if (self.method == "opq") != (self.rotation is not None):
            raise ArgumentError("method 'opq' has a rotation, and the others have none.")
        if self.deduplication_codes is not None:
            most = whole_number(self.deduplication_codes, "deduplication_codes", 1, MAX_CODEBOOK_SIZE)
            object.__setattr__(self, "deduplication_codes", most)
            if len(sizes) == MAX_LEVELS:
                raise ArgumentError(f"a SID has at most {MAX_LEVELS} codes, the separating one included.")
        object.__setattr__(self, "codebooks", codebooks)
        object.__setattr__(self, "codebook_sizes", sizes)
        self._check_lengths()
        if self.rotation is not None:
            object.__setattr__(self, "rotation", _own(self.rotation, "the rotation"))
            self._check_rotation()
        for array in (*codebooks, *(() if self.rotation is None else (self.rotation,))):
            array.setflags(write=False)

    def _check_lengths(self) -> None:
        """Checks that no codeword is longer than embeddings, and what levels leave of them, can make it."""
        most = LONGER * LARGEST * self.dim**0.5
        for level, codebook in enumerate(self.codebooks):
            lengths = np.sqrt((codebook.astype(np.float64) ** 2).sum(1))
            if lengths.max() > most:
                code = int(lengths.argmax())
                raise ArgumentError(
                    f"level {level}, code {code}: the codeword is {lengths[code]:.1e} long, and numbers of embeddings "
                    f"up to {LARGEST:.0e} make none longer than {most:.1e}. Scale the embeddings down and train anew."
                )

    def _check_rotation(self) -> None:
        shape = self.rotation.shape  # type: ignore[union-attr]
        if shape != (self.dim, self.dim):
            raise ArgumentError(f"the rotation must be [{self.dim}, {self.dim}]; got shape {shape}.")
        lengths = np.sqrt((self.rotation.astype(np.float64) ** 2).sum(1))  # type: ignore[union-attr]
        if not (np.abs(lengths - 1) < ROUGHLY).all():
            raise ArgumentError("the rotation must be orthonormal: its rows are not 1 long.")

    @property
    def num_levels(self) -> int:
        """L, the codes that an embedding becomes; the one that separates is not counted."""
        return len(self.codebooks)

    @property
    def dim(self) -> int:
        """D, the numbers of an embedding."""
        width = self.codebooks[0].shape[1]
        return width if self.method == "residual" else width * self.num_levels

    def dimensions(self, level: int) -> slice:
        """Returns which dimensions a level encodes; of rotated embeddings, where there is a rotation."""
        width = self.codebooks[level].shape[1]
        return slice(width) if self.method == "residual" else slice(level * width, (level + 1) * width)

    def encode(self, embeddings: Any) -> np.ndarray:
        """Returns the codes int32 [M, L] of embeddings [M, D], whatever rows stand beside each other.

        Raises:
            ArgumentError: they are not a matrix of finite numbers, D wide.
        """
        vectors = as_embeddings(embeddings, dim=self.dim)
        codes = np.empty((len(vectors), self.num_levels), np.int32)
        for begin in range(0, len(vectors), BLOCK):
            codes[begin : begin + BLOCK] = self._encode(vectors[begin : begin + BLOCK])
        return codes

    def _encode(self, vectors: np.ndarray) -> np.ndarray:
        if self.method != "residual":
            turned = vectors if self.rotation is None else rotated(vectors, self.rotation)
            slices = np.split(turned, self.num_levels, axis=1)
            pairs = zip(slices, self.codebooks, strict=True)
            return np.stack([nearest(np.ascontiguousarray(part), codebook) for part, codebook in pairs], axis=1)
        left, codes = vectors.copy(), []
        for codebook in self.codebooks:
            codes.append(nearest(left, codebook))
            left -= codebook[codes[-1]]
        return np.stack(codes, axis=1)

    def decode(self, codes: Any) -> np.ndarray:
        """Returns the embeddings float32 [M, D] that codes [M, l] stand for.

        Of a prefix, l less than L, it is what is known by then: the levels that are not there add nothing. A code that
        separates items is taken, and adds nothing.

        Raises:
            ArgumentError: codes that the codebooks do not have.
        """
        matrix = self._checked(codes)
        vectors = np.zeros((len(matrix), self.dim), np.float32)
        for level, column in enumerate(matrix.T[: self.num_levels]):
            vectors[:, self.dimensions(level)] += self.codebooks[level][column]
        return vectors if self.rotation is None else vectors @ self.rotation

    def _checked(self, codes: Any) -> np.ndarray:
        matrix = as_array(codes, "codes")
        most = self.num_levels + (self.deduplication_codes is not None)
        if matrix.ndim != 2 or matrix.dtype.kind not in "iu" or not 1 <= matrix.shape[1] <= most:
            raise ArgumentError(
                f"codes must be integers [items, 1 to {most}]; got {matrix.dtype} of shape {matrix.shape}."
            )
        known_codes = [*map(len, self.codebooks), self.deduplication_codes or 0]
        for level, column in enumerate(matrix.T):
            known, kind = known_codes[level], "that were trained" if level < self.num_levels else "that separate items"
            if len(column) and not (column.min() >= 0 and column.max() < known):
                row = int(np.argmax((column < 0) | (column >= known)))
                raise ArgumentError(f"row {row}, level {level}: code {column[row]} is not one of the {known:,} {kind}.")
        return matrix

    def __repr__(self) -> str:
        separate = "" if self.deduplication_codes is None else f", deduplication_codes={self.deduplication_codes}"
        return f"{type(self).__name__}(method={self.method!r}, dim={self.dim}, codebook_sizes={list(self.codebook_sizes)}{separate})"


def rotated(vectors: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Returns vectors float32 [N, D] rotated, each the same whatever rows stand beside it."""
    # In float64, whose errors are far below what the result is rounded to.
    return (vectors.astype(np.float64) @ rotation.T.astype(np.float64)).astype(np.float32)


def _own(values: Any, what: str) -> np.ndarray:
    """Returns a copy as float32: the caller may go on to change what he gave."""
    array = as_array(values, what)
    if array.dtype.kind not in "fiu":
        raise ArgumentError(f"{what} must be numbers, as float32; got an array of {array.dtype}.")
    with np.errstate(over="ignore"):
        return np.array(array, np.float32, order="C")
