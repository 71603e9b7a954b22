"""Compute the Semantic ID of each film by residual quantization of its facts, and write `films.parquet`."""

# scikit-learn has no type hints, and the types that pyright infers are too narrow.
# pyright: reportArgumentType=false, reportReturnType=false

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from paths import CREDITED, FILMS, SEED
from scipy.sparse import csr_matrix
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import MultiLabelBinarizer, normalize

LEVELS, CODEBOOK_SIZE = 4, 256
BINS = np.arange(1940, 2020, 5)  # the era of a film is a weight for each of these years

# The first codes depend mainly on the blocks with the largest weights. A small model learns these codes first.
WEIGHTS = {"genres": 1.0, "era": 0.7, "countries": 0.6, "languages": 0.3, "people": 0.4, "title": 0.15}

Film = dict[str, Any]


def one_hot(lists: Iterable[list[str]]) -> np.ndarray:
    return normalize(np.asarray(MultiLabelBinarizer().fit_transform(lists), dtype=np.float64))


def era(years: np.ndarray) -> np.ndarray:
    return normalize(np.exp(-(((years[:, None] - BINS) / 5.0) ** 2)))


def reduced(documents: list[list[str]], size: int) -> np.ndarray:
    """TF-IDF over whole names or words, reduced to `size` dimensions."""
    unchanged: Callable[[list[str]], list[str]] = list
    counts = TfidfVectorizer(analyzer=unchanged, min_df=2, sublinear_tf=True).fit_transform(documents)
    return normalize(TruncatedSVD(size, random_state=SEED).fit_transform(csr_matrix(counts)))


def people(film: Film) -> list[str]:
    directors = (film["director"] or "").split(", ")
    return [*directors * 3, *film["writers"], *film["cast"][:12]]


def features(films: list[Film]) -> np.ndarray:
    blocks = {
        "genres": one_hot(film["genres"] for film in films),
        "era": era(np.array([film["year"] for film in films])),
        "countries": one_hot(film["countries"] for film in films),
        "languages": one_hot(film["languages"] for film in films),
        "people": reduced([people(film) for film in films], 48),
        "title": reduced([film["title"].lower().split() for film in films], 16),
    }
    return np.hstack([WEIGHTS[name] * block for name, block in blocks.items()]).astype(np.float32)


def residual_codes(vectors: np.ndarray) -> np.ndarray:
    """`LEVELS` codes per row: each level clusters the residuals of the previous level."""
    residual, codes = vectors.copy(), []
    for level in range(LEVELS):
        means = KMeans(CODEBOOK_SIZE, n_init=1, max_iter=60, random_state=SEED + level).fit(residual)
        residual -= means.cluster_centers_[means.labels_]
        codes.append(means.labels_)
    return np.stack(codes, axis=1).astype(np.uint8)


def report(codes: np.ndarray) -> str:
    _, shared = np.unique(codes, axis=0, return_counts=True)
    used = [len(np.unique(codes[:, level])) for level in range(LEVELS)]
    return (
        f"{len(codes):,} films, {len(shared):,} SIDs, {shared[shared > 1].sum():,} films share one "
        f"(at most {shared.max()}), codes used per level {used}"
    )


def main() -> None:
    table = pq.read_table(CREDITED)
    codes = residual_codes(features(table.to_pylist()))
    sids = pa.FixedSizeListArray.from_arrays(pa.array(codes.reshape(-1)), LEVELS)
    FILMS.parent.mkdir(parents=True, exist_ok=True)
    shipped = table.drop_columns(["writers", "cast"]).append_column("sid", sids)
    pq.write_table(shipped, FILMS, compression="zstd", compression_level=19)
    print(report(codes), f"-> {FILMS.name}, {FILMS.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
