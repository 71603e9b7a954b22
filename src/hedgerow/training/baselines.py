"""Baselines: popularity, items that the same users took (item-kNN), and items with similar content (content-kNN)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hedgerow._arguments import whole_number
from hedgerow.errors import ArgumentError, MissingDependencyError
from hedgerow.training.rankers import ScoreRanker

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# The weight of an item of a history, for each later item.
DECAY = 0.8
# Earlier items of a history have no weight any more.
LONGEST = 50
# BM25 with little normalization by the popularity of items; better than cosine on validation data.
K1, B = 1.2, 0.2
NEIGHBORS = 200
# Powers of a cosine: one very similar item counts more than several less similar ones.
TEXT_POWER, VECTOR_POWER = 2, 3


def popularity(training: Sequence[np.ndarray], num_items: int) -> ScoreRanker:
    """Rank items by their number of interactions, the same for all users.

    Args:
        training: the items of each user that train, rows of the index: `Split.training`.
        num_items: N.

    Examples:
        ```python
        import numpy as np
        from hedgerow.training import Questions, popularity

        ranker = popularity([np.array([0, 1]), np.array([1, 2]), np.array([1])], num_items=4)
        questions = Questions([np.array([0])], np.array([1]), np.array([0]))
        assert ranker.rank(questions, 3).items.tolist() == [[1, 2, -1]]
        ```
    """
    counts = item_counts(training, num_items).astype(np.float32)
    return ScoreRanker(num_items, lambda histories: np.tile(counts, (len(histories), 1)))


def item_counts(training: Sequence[np.ndarray], num_items: int) -> np.ndarray:
    """int64 [N], the number of interactions of each item."""
    return np.bincount(np.concatenate([np.zeros(0, np.int64), *training]), minlength=num_items)


def item_knn(training: Sequence[np.ndarray], num_items: int, *, neighbors: int = NEIGHBORS) -> ScoreRanker:
    """Rank items by the users that they share with the items of a history: the `BM25Recommender` of implicit.

    Later items of a history count more: an item counts 0.8 times as much as the next.

    Args:
        training: as for `popularity`.
        num_items: N.
        neighbors: the number of similar items that are kept per item.

    Raises:
        MissingDependencyError: implicit is not installed.

    Examples:
        ```python
        import numpy as np
        from hedgerow.training import Questions, item_knn

        ranker = item_knn([np.array([0, 1]), np.array([0, 1]), np.array([2, 3])], num_items=4)
        questions = Questions([np.array([0])], np.array([1]), np.array([0]))
        assert ranker.rank(questions, 2).items.tolist() == [[1, -1]]
        ```
    """
    try:
        from implicit.nearest_neighbours import BM25Recommender
    except ModuleNotFoundError:
        raise MissingDependencyError.of("item_knn", "implicit", "evaluate") from None
    import warnings

    taken = _matrix(training, num_items, 1.0)
    # An item counts once for a user.
    taken.data[:] = 1
    recommender = BM25Recommender(K=neighbors + 1, K1=K1, B=B, num_threads=1)
    with warnings.catch_warnings():
        # implicit warns about a conversion of its own.
        warnings.simplefilter("ignore")
        recommender.fit(taken, show_progress=False)
    similar: Any = recommender.similarity
    similar = similar.tocsr().astype(np.float32)
    similar.setdiag(0)
    return ScoreRanker(num_items, lambda histories: (_matrix(histories, num_items, DECAY) @ similar).toarray())


def content_knn(vectors: Any, *, power: int = VECTOR_POWER) -> ScoreRanker:
    """Rank items by the cosines of their vectors with those of the items of a history.

    The score is a sum over the history of cosines to the power of `power`; negative cosines count as 0. Later items
    count more, as for `item_knn`.

    Args:
        vectors: [N, D], dense or a sparse matrix of SciPy: for example `hedgerow.embed_texts`, `text_vectors`, or
            `reconstructed` vectors of a quantizer.
        power: a positive integer. The larger, the more the most similar items of a history decide.

    Raises:
        ArgumentError: `vectors` is not a matrix of finite numbers, or `power` is no positive integer.

    Examples:
        ```python
        import numpy as np
        from hedgerow.training import Questions, content_knn

        ranker = content_knn(np.array([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]]))
        questions = Questions([np.array([0])], np.array([1]), np.array([0]))
        assert ranker.rank(questions, 2).items.tolist() == [[2, -1]]
        ```
    """
    whole_number(power, "power")
    unit = _unit(vectors)
    transposed = unit.T

    def score(histories: list[np.ndarray]) -> np.ndarray:
        histories = [history[-LONGEST:] for history in histories]
        # Each item of these histories once.
        distinct, places = np.unique(np.concatenate(histories), return_inverse=True)
        product: Any = unit[distinct] @ transposed
        cosines = product.toarray() if hasattr(product, "toarray") else product
        positions = np.split(places, np.cumsum([len(history) for history in histories])[:-1])
        return _matrix(positions, len(distinct), DECAY) @ _power(np.maximum(cosines, 0), power)

    return ScoreRanker(unit.shape[0], score)


def text_vectors(texts: Sequence[str]) -> csr_matrix:
    """TF-IDF vectors of texts, a sparse matrix [N, words], for `content_knn(vectors, power=2)`.

    Args:
        texts: N texts.

    Raises:
        ArgumentError: there are no words.
        MissingDependencyError: scikit-learn is not installed.

    Examples:
        ```python
        from hedgerow.training import text_vectors

        assert text_vectors(["red lipstick", "red nail polish"]).shape == (2, 4)
        ```
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ModuleNotFoundError:
        raise MissingDependencyError.of("text_vectors", "scikit-learn", "evaluate") from None
    try:
        found: Any = TfidfVectorizer(sublinear_tf=True).fit_transform(texts)
        return found.tocsr().astype(np.float32)
    except ValueError as error:
        raise ArgumentError(f"the texts have no words to compare: {error}") from None


def _matrix(histories: Sequence[np.ndarray], num_items: int, decay: float) -> csr_matrix:
    """Histories as a sparse matrix float32 [q, N]; an item counts `decay` times as much as the next."""
    try:
        from scipy.sparse import csr_matrix
    except ModuleNotFoundError:
        raise MissingDependencyError.of("item_knn and content_knn", "scipy", "evaluate") from None
    lengths = [len(history) for history in histories]
    ages = np.concatenate([np.zeros(0, np.int64), *(np.arange(length)[::-1] for length in lengths)])
    columns = np.concatenate([np.zeros(0, np.int64), *histories])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    matrix = csr_matrix(((decay**ages).astype(np.float32), columns, starts), (len(histories), num_items))
    matrix.sum_duplicates()
    return matrix


def _power(values: np.ndarray, power: int) -> np.ndarray:
    """Products are much faster than NumPy's general power."""
    product = values
    for _ in range(power - 1):
        product = product * values
    return product


def _unit(vectors: Any) -> Any:
    """Vectors of length 1, float32; zeros stay zeros."""
    if hasattr(vectors, "tocsr"):
        matrix = vectors.tocsr().astype(np.float32)
        lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
        return matrix.multiply(1 / np.where(lengths > 0, lengths, 1)[:, None]).tocsr()
    from hedgerow.semantic.vectors import as_embeddings

    matrix = as_embeddings(vectors)
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    return matrix / np.where(lengths > 0, lengths, 1)
