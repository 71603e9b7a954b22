"""Training of codebooks with faiss: k-means per level, on residuals or on slices of the dimensions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy as np

from hedgerow.errors import ArgumentError, MissingDependencyError
from hedgerow.index.build import Progress, ignore_progress
from hedgerow.semantic.codebooks import Codebooks, rotated
from hedgerow.semantic.nearest import nearest

# The number of items to train on, in total and per code. More items do not improve codebooks.
SAMPLE = 1 << 16
SAMPLE_PER_CODE = 256
# `_along_axes` increases the number of dimensions in this many steps.
STEPS = 10
# The maximum number of k-means runs of a level: `_far_apart`, the steps of `_along_axes`, and all dimensions.
RUNS = STEPS + 1
# The number of vectors per code from which `_far_apart` chooses, and the number from which axes are computed.
START_PER_CODE = 16
AXES_SAMPLE = 1 << 14
# Embeddings of numbers below this are scaled up for training.
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
    """Train codebooks on embeddings. Equal embeddings and seeds give equal codebooks.

    Residual levels are trained in order, each on the residuals of the levels before it. So a level does not depend on
    later levels. If a level has fewer distinct vectors than codes, these vectors are the codewords.

    Args:
        embeddings: float32 [N, D], N at least 1.
        sizes: L codebook sizes.
        method: "residual", "product" or "opq".
        seed: the seed of the sample and of the initial codewords.
        iterations: the number of k-means iterations.
        progress: called as ``progress(what, done, total)`` before each level, and after each run of k-means.

    Raises:
        ArgumentError: method "product" or "opq", and L does not divide D.
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
            f"{sample.shape[1]:,} dimensions. Use {', '.join(divisors[:12])} levels, or method 'residual'."
        )
    rotation = None
    if method == "opq":
        progress("rotation", 0, RUNS * len(sizes))
        rotation = _rotation(faiss, sample, sizes, seed)
        sample = rotated(sample, rotation)
    codebooks = []
    for level, part in enumerate(np.split(sample, len(sizes), axis=1)):
        on_run = _level_progress(progress, level, len(sizes))
        part = np.ascontiguousarray(part)
        codebooks.append(_kmeans(faiss, part, sizes[level], _seed(seed, level), iterations, on_run))
    return Codebooks(method, _scaled(codebooks, -power), sizes, rotation)


def _level_progress(progress: Progress, level: int, levels: int) -> Callable[[], None]:
    """Report the start of a level; the function that reports that one of its runs of k-means has ended."""
    done = count(level * RUNS)

    def on_run() -> None:
        progress(f"level {level}", next(done), levels * RUNS)

    on_run()
    return on_run


def _power(vectors: np.ndarray) -> int:
    """The exponent of 2 that scales very small vectors to about 1, so that squares do not underflow; otherwise 0."""
    largest = max(float(vectors.max()), -float(vectors.min()))
    return 1 - int(np.frexp(largest)[1]) if 0 < largest < SMALL else 0


def _scaled(codebooks: Sequence[np.ndarray], power: int) -> tuple[np.ndarray, ...]:
    return tuple(np.ldexp(codebook, power) if power else codebook for codebook in codebooks)


def _residual(
    faiss: Any, residuals: np.ndarray, sizes: tuple[int, ...], seed: int, iterations: int, progress: Progress
) -> tuple[np.ndarray, ...]:
    codebooks = []
    for level, size in enumerate(sizes):
        on_run = _level_progress(progress, level, len(sizes))
        codebooks.append(_kmeans(faiss, residuals, size, _seed(seed, level), iterations, on_run))
        residuals -= codebooks[-1][nearest(residuals, codebooks[-1])]
    return tuple(codebooks)


def _kmeans(
    faiss: Any, vectors: np.ndarray, size: int, seed: int, iterations: int, on_run: Callable[[], None]
) -> np.ndarray:
    """A codebook [C, D] by k-means: the better result of two initializations.

    For clustered vectors, codewords that are far apart are the better start. For vectors of many dimensions without
    clusters, for example residuals, k-means from that start assigns most vectors to one codeword. For these, codewords
    along the principal axes are the better start.
    """
    distinct = _distinct(vectors, size)
    if distinct is not None:
        return distinct
    results = [_lloyd(faiss, vectors, seed, iterations, _far_apart(vectors, size, seed))]
    on_run()
    start = _along_axes(faiss, vectors, size, seed, iterations, on_run)
    results.append(_lloyd(faiss, vectors, seed, iterations, start))
    return min(results, key=lambda codebook_and_loss: codebook_and_loss[1])[0]


def _lloyd(faiss: Any, vectors: np.ndarray, seed: int, iterations: int, start: np.ndarray) -> tuple[np.ndarray, float]:
    """A codebook [C, D] and the sum of its squared residuals."""
    # Use every vector, and do not warn on stderr about few vectors: the report shows unused codes.
    bounds = {"min_points_per_centroid": 1, "max_points_per_centroid": len(vectors)}
    kmeans = faiss.Kmeans(vectors.shape[1], len(start), niter=iterations, seed=seed, **bounds)
    loss = kmeans.train(vectors, init_centroids=np.ascontiguousarray(start, np.float32))
    return kmeans.centroids.copy(), float(loss)


def _far_apart(vectors: np.ndarray, size: int, seed: int) -> np.ndarray:
    """The initial codewords of k-means++: vectors that are drawn with probabilities that grow with their distances."""
    rng = np.random.default_rng(seed)
    sample = vectors
    if len(sample) > START_PER_CODE * size:
        sample = sample[np.sort(rng.choice(len(sample), START_PER_CODE * size, replace=False))]
    chosen = [int(rng.integers(len(sample)))]
    distances = np.full(len(sample), np.inf)
    while len(chosen) < size:
        distances = np.minimum(distances, np.square(sample - sample[chosen[-1]]).sum(1, dtype=np.float64))
        cumulative = np.cumsum(distances)
        row = np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")
        chosen.append(min(int(row), len(sample) - 1))
    return sample[chosen]


def _along_axes(
    faiss: Any, vectors: np.ndarray, size: int, seed: int, iterations: int, on_run: Callable[[], None]
) -> np.ndarray:
    """Initial codewords [C, D] by k-means along the first principal axis of the vectors, then along more axes."""
    dim = vectors.shape[1]
    sample = np.ascontiguousarray(vectors[:: -(-len(vectors) // AXES_SAMPLE)])
    steps = sorted({max(1, min(len(sample), int(dim ** (step / STEPS)))) for step in range(1, STEPS)})
    principal = faiss.PCAMatrix(dim, steps[-1])
    with _one_thread(faiss):
        principal.train(sample)
        turned = principal.apply(vectors)
    axes, mean = faiss.vector_to_array(principal.A).reshape(-1, dim), faiss.vector_to_array(principal.mean)
    codebook = turned[np.random.default_rng(seed).choice(len(vectors), size, replace=False)][:, : steps[0]]
    for dims in steps:
        wider = np.pad(codebook, ((0, 0), (0, dims - codebook.shape[1])))
        codebook, _ = _lloyd(faiss, np.ascontiguousarray(turned[:, :dims]), seed, iterations, wider)
        on_run()
    # The order of einsum's sums does not depend on the number of threads.
    return np.einsum("kd,de->ke", codebook, axes) + mean


def _distinct(vectors: np.ndarray, limit: int) -> np.ndarray | None:
    """The distinct vectors, sorted; None if there are more than `limit`."""
    rows: dict[bytes, int] = {}
    for row, vector in enumerate(vectors + np.float32(0)):  # -0 becomes 0
        rows.setdefault(vector.tobytes(), row)
        if len(rows) > limit:
            return None
    return np.unique(vectors[list(rows.values())] + np.float32(0), axis=0)


def _rotation(faiss: Any, sample: np.ndarray, sizes: tuple[int, ...], seed: int) -> np.ndarray:
    """The rotation [D, D] that minimizes the error of slices; the identity if there are too few items to learn one."""
    dim, levels = sample.shape[1], len(sizes)
    bits = min(max(sizes), len(sample)).bit_length() - 1
    if bits == 0 or levels == 1:
        return np.eye(dim, dtype=np.float32)
    matrix = faiss.OPQMatrix(dim, levels)
    product = faiss.ProductQuantizer(dim, levels, min(bits, 8))
    product.cp.min_points_per_centroid = 1
    product.cp.seed = _seed(seed, levels)
    matrix.pq = product
    # With fewer vectors than dimensions, faiss writes out of bounds. Repeated vectors do not change the result.
    repeated = np.tile(sample, (-(-dim // len(sample)), 1))
    with _one_thread(faiss):
        matrix.train(repeated)
    return faiss.vector_to_array(matrix.A).reshape(dim, dim).copy()


@contextmanager
def _one_thread(faiss: Any) -> Iterator[None]:
    """Run faiss on one thread: the order of sums depends on the threads, and decompositions amplify the differences."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def _sample(embeddings: np.ndarray, limit: int, seed: int) -> np.ndarray:
    if len(embeddings) <= limit:
        return embeddings
    rows = np.random.default_rng(seed).choice(len(embeddings), limit, replace=False)
    return embeddings[np.sort(rows)]


def _seed(seed: int, level: int) -> int:
    """The seed of one level, in the range of faiss. It does not depend on the number of levels."""
    return int(np.random.default_rng((seed, level)).integers(1, 2**31 - 1))


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingDependencyError.of(
            "training Semantic IDs", "faiss-cpu", "semantic", "A saved quantizer encodes without it."
        ) from error
    return faiss
