"""Codebooks trained by faiss: k-means level by level, on what is left or slice by slice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from hedgerow.errors import ArgumentError, MissingDependencyError
from hedgerow.index.build import Progress, ignore_progress
from hedgerow.semantic.codebooks import Codebooks, rotated
from hedgerow.semantic.nearest import nearest

# More items than this, or than so many a code, do not make better codebooks.
SAMPLE = 1 << 16
SAMPLE_PER_CODE = 256
# How many times k-means is given more dimensions; how many vectors a start is chosen from, a code, or axes in all.
STEPS = 10
START_PER_CODE = 16
AXES_SAMPLE = 1 << 14
# Embeddings below are scaled up for training.
SMALL = 1e-6


def train_codebooks(
    embeddings: np.ndarray,
    sizes: tuple[int, ...],
    *,
    method: str = "residual",
    seed: int = 0,
    iterations: int = 25,
    progress: Progress = ignore_progress,
) -> Codebooks:
    """Returns codebooks trained on embeddings; the same for the same seed.

    Residual levels are trained one after another, each on what the ones before it have left. So the codes of a level
    do not depend on the levels after it. Where a level has fewer distinct vectors than codes, each becomes a codeword.

    Args:
        embeddings: float32 [N, D], N at least 1.
        sizes: L codebook sizes.
        method: "residual", "product" or "opq".
        seed: of the sample and of the first codewords.
        iterations: of k-means.
        progress: is told which level is trained.

    Raises:
        ArgumentError: slices do not divide D.
        MissingDependencyError: faiss is not installed.
    """
    faiss = _faiss()
    sample = _sample(embeddings, max(SAMPLE, SAMPLE_PER_CODE * max(sizes)), seed)
    power = _power(sample)
    sample = np.ldexp(sample, power) if power else sample
    if method == "residual":
        codebooks = _residual(faiss, sample.copy(), sizes, seed, iterations, progress)
        return Codebooks(method, _scaled(codebooks, -power), sizes)
    if sample.shape[1] % len(sizes):
        divisors = [str(levels) for levels in range(1, sample.shape[1] + 1) if sample.shape[1] % levels == 0]
        raise ArgumentError(
            f"method {method!r} gives each level the same number of dimensions, and {len(sizes)} levels do not divide "
            f"{sample.shape[1]:,} dimensions. Take {', '.join(divisors[:12])} levels, or method 'residual'."
        )
    rotation = None
    if method == "opq":
        progress("rotation", 0, len(sizes))
        rotation = _rotation(faiss, sample, sizes, seed)
        sample = rotated(sample, rotation)
    codebooks = []
    for level, part in enumerate(np.split(sample, len(sizes), axis=1)):
        progress(f"level {level}", level, len(sizes))
        codebooks.append(_kmeans(faiss, np.ascontiguousarray(part), sizes[level], _seed(seed, level), iterations))
    return Codebooks(method, _scaled(codebooks, -power), sizes, rotation)


def _power(vectors: np.ndarray) -> int:
    """Returns which power of two makes very small vectors about 1, of which float32 can hold the squares; else 0."""
    largest = max(float(vectors.max()), -float(vectors.min()))
    return 1 - int(np.frexp(largest)[1]) if 0 < largest < SMALL else 0


def _scaled(codebooks: Sequence[np.ndarray], power: int) -> tuple[np.ndarray, ...]:
    return tuple(np.ldexp(codebook, power) if power else codebook for codebook in codebooks)


def _residual(
    faiss: Any, left: np.ndarray, sizes: tuple[int, ...], seed: int, iterations: int, progress: Progress
) -> tuple[np.ndarray, ...]:
    codebooks = []
    for level, size in enumerate(sizes):
        progress(f"level {level}", level, len(sizes))
        codebooks.append(_kmeans(faiss, left, size, _seed(seed, level), iterations))
        left -= codebooks[-1][nearest(left, codebooks[-1])]
    return tuple(codebooks)


def _kmeans(faiss: Any, vectors: np.ndarray, size: int, seed: int, iterations: int) -> np.ndarray:
    """Returns a codebook [K, D] by k-means: the better of two starts.

    Vectors in clusters want codewords that begin far from one another. In many dimensions without clusters, as what is
    left after the first level, k-means so ends with one codeword that most vectors are nearest to, and many that are
    nearest to one: there, it has to begin along the main axes.
    """
    few = _distinct(vectors, size)
    if few is not None:
        return few
    starts = (_far_apart(vectors, size, seed), _along_axes(faiss, vectors, size, seed, iterations))
    made = [_lloyd(faiss, vectors, seed, iterations, start) for start in starts]
    return min(made, key=lambda codebook_and_loss: codebook_and_loss[1])[0]


def _lloyd(faiss: Any, vectors: np.ndarray, seed: int, iterations: int, start: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns a codebook [K, D] and the sum of squares that it leaves."""
    # Every vector is used, and few vectors are no reason for a word on stderr: the report shows what came of it.
    bounds = {"min_points_per_centroid": 1, "max_points_per_centroid": len(vectors)}
    kmeans = faiss.Kmeans(vectors.shape[1], len(start), niter=iterations, seed=seed, **bounds)
    loss = kmeans.train(vectors, init_centroids=np.ascontiguousarray(start, np.float32))
    return kmeans.centroids.copy(), float(loss)


def _far_apart(vectors: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Returns `size` of the vectors as k-means++ chooses them: each the likelier the further from those before it."""
    rng = np.random.default_rng(seed)
    some = vectors
    if len(some) > START_PER_CODE * size:
        some = some[np.sort(rng.choice(len(some), START_PER_CODE * size, replace=False))]
    chosen = [int(rng.integers(len(some)))]
    apart = np.full(len(some), np.inf)
    while len(chosen) < size:
        apart = np.minimum(apart, np.square(some - some[chosen[-1]]).sum(1, dtype=np.float64))
        steps = np.cumsum(apart)
        far = np.searchsorted(steps, rng.random() * steps[-1], side="right")
        chosen.append(min(int(far), len(some) - 1))
    return some[chosen]


def _along_axes(faiss: Any, vectors: np.ndarray, size: int, seed: int, iterations: int) -> np.ndarray:
    """Returns a start [K, D] from k-means along the main axis of the vectors, then along more and more of them."""
    dim = vectors.shape[1]
    some = np.ascontiguousarray(vectors[:: -(-len(vectors) // AXES_SAMPLE)])
    steps = sorted({max(1, min(len(some), int(dim ** (step / STEPS)))) for step in range(1, STEPS)})
    principal = faiss.PCAMatrix(dim, steps[-1])
    with _one_thread(faiss):
        principal.train(some)
        turned = principal.apply(vectors)
    axes, mean = faiss.vector_to_array(principal.A).reshape(-1, dim), faiss.vector_to_array(principal.mean)
    codebook = turned[np.random.default_rng(seed).choice(len(vectors), size, replace=False)][:, : steps[0]]
    for dims in steps:
        wider = np.pad(codebook, ((0, 0), (0, dims - codebook.shape[1])))
        codebook, _ = _lloyd(faiss, np.ascontiguousarray(turned[:, :dims]), seed, iterations, wider)
    # einsum adds up in one order, however many threads there are.
    return np.einsum("kd,de->ke", codebook, axes) + mean


def _distinct(vectors: np.ndarray, most: int) -> np.ndarray | None:
    """Returns the distinct vectors in order, or None where there are more than `most`."""
    seen: dict[bytes, int] = {}
    for row, vector in enumerate(vectors + np.float32(0)):  # so that -0 is 0
        seen.setdefault(vector.tobytes(), row)
        if len(seen) > most:
            return None
    return np.unique(vectors[list(seen.values())] + np.float32(0), axis=0)


def _rotation(faiss: Any, sample: np.ndarray, sizes: tuple[int, ...], seed: int) -> np.ndarray:
    """Returns the rotation [D, D] that makes slices easy to quantise; none where items are too few to learn one."""
    dim, levels = sample.shape[1], len(sizes)
    bits = min(max(sizes), len(sample)).bit_length() - 1
    if bits == 0 or levels == 1:
        return np.eye(dim, dtype=np.float32)
    matrix = faiss.OPQMatrix(dim, levels)
    product = faiss.ProductQuantizer(dim, levels, min(bits, 8))
    product.cp.min_points_per_centroid = 1
    product.cp.seed = _seed(seed, levels)
    matrix.pq = product
    # Of fewer vectors than dimensions faiss writes past its memory; the same ones twice say no more than once.
    enough = np.tile(sample, (-(-dim // len(sample)), 1))
    with _one_thread(faiss):
        matrix.train(enough)
    return faiss.vector_to_array(matrix.A).reshape(dim, dim).copy()


@contextmanager
def _one_thread(faiss: Any) -> Iterator[None]:
    """More threads add up in another order, and the decompositions within make much of little."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def _sample(embeddings: np.ndarray, most: int, seed: int) -> np.ndarray:
    if len(embeddings) <= most:
        return embeddings
    rows = np.random.default_rng(seed).choice(len(embeddings), most, replace=False)
    return embeddings[np.sort(rows)]


def _seed(seed: int, level: int) -> int:
    """Returns a seed of one level, as faiss takes them, that does not depend on how many levels there are."""
    return int(np.random.default_rng((seed, level)).integers(1, 2**31 - 1))


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingDependencyError.of(
            "training Semantic IDs", "faiss-cpu", "semantic", "A saved quantizer encodes without it."
        ) from error
    return faiss
