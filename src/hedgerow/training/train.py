"""train(): from an index and histories to the folder of a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from hedgerow.errors import ArgumentError, MissingDependencyError
from hedgerow.hf.searched import trie_of
from hedgerow.live.opened import open_searched
from hedgerow.live.version import Version
from hedgerow.training.histories import Histories, read_histories
from hedgerow.training.options import TrainingOptions
from hedgerow.training.outcome import Progress, TrainingReport, ignore_progress
from hedgerow.training.splits import Split, leave_one_out
from hedgerow.trie_index import TrieIndex


def train(
    index: Any,
    histories: Any,
    output: str | Path,
    options: TrainingOptions | None = None,
    *,
    quantizer: Any = None,
    embeddings: Any = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = ignore_progress,
    **settings: Any,
) -> TrainingReport:
    """Train a model on histories, and write it to a folder that `hedgerow retrieve`, `serve` and `explain` take.

    The folder has a plain model of transformers, its tokenizer, tokens.json, the split, the metrics and a model card.
    It appears when the training is done. Until then, checkpoints are in the hidden folder .NAME.training beside it;
    after an interruption, `resume` continues from the last one.

    Args:
        index: an index, a live index, or the path of either. Items that were removed from a live index train, too.
        histories: `Histories`, a `Split`, or the path of a file as for `read_histories`. Histories are split by
            `leave_one_out`. The questions of the test are not used.
        output: the folder to write.
        options: the settings. Default: `TrainingOptions()`.
        quantizer: the quantizer that made the SIDs, or its file: embeddings of codes start from its centroids.
        embeddings: the embeddings of the items, for the same purpose: an array [N, D] in the order of
            `index.item_ids`, or a table or Parquet file with the columns item_id and embedding.
        resume: continue an interrupted training, with the same data and settings.
        overwrite: replace an existing folder, and discard an interrupted training.
        progress: called as ``progress(what, done, total)``.
        settings: settings of `TrainingOptions` by name, instead of those in `options`.

    Raises:
        ArgumentError: an argument is invalid or does not fit the index, the folder exists, or there is no training to
            resume, or it had other data or settings; or the disk is full.
        MissingDependencyError: a package of the extra `train` is not installed.

    Examples:
        ```python
        import hedgerow as hr
        import numpy as np
        import pyarrow as pa
        from hedgerow.training import Histories, train

        rng = np.random.default_rng(0)
        index = hr.build_index(hr.Catalog(rng.permutation(64)[:40, None] // [8, 1] % 8, item_ids=range(40)))
        rows = {"user": np.repeat(range(30), 4), "item_id": rng.integers(0, 40, 120), "timestamp": range(120)}
        histories = Histories.from_arrow(pa.table(rows), index)
        report = train(index, histories, "model", size="tiny", epochs=1, device="cpu")
        assert (report.folder / "tokens.json").exists()
        ```
    """
    chosen = replace(options or TrainingOptions(), **_checked(settings))
    if quantizer is not None and embeddings is not None:
        raise ArgumentError("pass quantizer or embeddings, not both: each gives the content of the codes.")
    trie, _ = opened_index(index)
    split = _split_of(histories, trie)
    try:
        from hedgerow.training.running import run
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package == "hedgerow":
            raise
        raise MissingDependencyError.of("training", package, "train") from error
    content = {"quantizer": quantizer, "embeddings": embeddings}
    return run(trie, split, Path(output).expanduser(), chosen, content, resume, overwrite, progress)


def opened_index(index: Any) -> tuple[TrieIndex, Version | None]:
    """An index, a live index, or a path of either: the index to search; of a live index also the current version.

    Raises:
        HedgerowError: it cannot be loaded, or is of another type.
    """
    return trie_of(open_searched(index) if isinstance(index, str | Path) else index)


def _split_of(histories: Any, index: TrieIndex) -> Split:
    if isinstance(histories, Split):
        return histories
    if isinstance(histories, Histories):
        return leave_one_out(histories)
    return leave_one_out(read_histories(histories, index))


def _checked(settings: dict[str, Any]) -> dict[str, Any]:
    names = list(TrainingOptions.__dataclass_fields__)
    for name in settings:
        if name not in names:
            raise ArgumentError(f"there is no setting {name!r} of a training; the settings are {', '.join(names)}.")
    return settings
