"""The split and the options that a model was trained with, from its folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hedgerow.errors import ArgumentError
from hedgerow.training.histories import Histories
from hedgerow.training.splits import NO_QUESTION, PARTS, Split
from hedgerow.trie_index import TrieIndex

# `hedgerow.training.output` writes them, and needs PyTorch.
SPLIT, METRICS = "split.parquet", "training.json"


def split_of_model(folder: str | Path, histories: Histories, index: TrieIndex) -> Split | None:
    """The split in the folder of a model that `hedgerow train` wrote; None if there is none.

    Args:
        folder: the folder of the model.
        histories: the histories that the model was trained on.
        index: the index of the histories, which may have other items, too.

    Raises:
        ArgumentError: the model was trained on other histories, or a file is damaged.
    """
    folder = Path(folder).expanduser()
    file = folder / SPLIT
    if not file.is_file():
        return None
    try:
        table = pq.read_table(file)
        facts = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        method = facts["split"]
        columns = {name: _positions(table, name) for name in ("interactions", "train", *PARTS)}
        users = table.column("user")
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise ArgumentError(f"{folder}: the split of the model cannot be read: {error}") from None
    same = users.to_pylist() == histories.users.to_pylist()
    same &= np.array_equal(columns["interactions"], histories.lengths)
    if not same or facts.get("histories") not in (None, checksum(histories, index)):
        raise ArgumentError(
            f"{folder} was trained on other histories: {table.num_rows:,} users and "
            f"{int(columns['interactions'].sum()):,} interactions; got {len(histories):,} users and "
            f"{len(histories.items):,} interactions, or others in another order. Pass the file of its training, or a "
            "Split of your own histories whose questions it has not seen and a Retriever of the model."
        )
    return Split(histories, columns["train"], columns["validation"], columns["test"], method)


def checksum(histories: Histories, index: TrieIndex) -> str:
    """A checksum of the item ids of all histories, in their order. It does not depend on other items of the index."""
    ids = index.item_ids.take(pa.array(histories.items)).cast(pa.large_string()).combine_chunks()
    content = hashlib.sha256(histories.starts.tobytes())
    for buffer in ids.buffers()[1:]:
        content.update(b"" if buffer is None else buffer)
    return content.hexdigest()


def options_of_model(folder: str | Path) -> dict[str, Any]:
    """The options of the training of a model, with its seed; empty if `hedgerow train` did not write the folder.

    Raises:
        ArgumentError: the file is damaged.
    """
    file = Path(folder).expanduser() / METRICS
    if not file.is_file():
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")).get("options", {}))
    except (OSError, ValueError, AttributeError) as error:
        raise ArgumentError(f"{file} cannot be read: {error}") from None


def _positions(table: pa.Table, name: str) -> np.ndarray:
    column: Any = table.column(name).cast(pa.int64()).fill_null(NO_QUESTION)
    return column.to_numpy()
