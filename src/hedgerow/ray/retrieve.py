"""Retrieve: the items of the prompts of a Ray Data dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hedgerow._arguments import advice_on_name
from hedgerow.catalog.constructors import ITEM_ID
from hedgerow.errors import ArgumentError, HedgerowError
from hedgerow.index.arrow import take_rows
from hedgerow.ray.opening import Opening
from hedgerow.request import Request
from hedgerow.request_documents import KEYS, RequestOptions, answers_of, checked_document, request_of
from hedgerow.results import Results
from hedgerow.serve.rules import Rule, sets_of

if TYPE_CHECKING:
    import pyarrow as pa

# Rows that are answered together.
ROWS_AT_ONCE = 64
ROW_KEYS = (*KEYS, "sets")
ADDED = ("items", "complete", "reason", "error")


class Retrieve:
    """Retrieves the items of prompts: a callable class for `map_batches` of Ray Data, with Arrow tables as batches.

    Each row is a request, with the columns of a line of ``hedgerow retrieve --input``: `prompt` or `history`, and its
    own rules and sizes in `where`, `sets`, `exclude`, `candidates`, `k`, `beam_width`, `caps` and `order_by`. Null is
    as no value. All columns are kept, and these are added:

    - `items`: a list of structs: item_id, score (float32), sid, and the attributes; null if the row has an error.
    - `complete` and `reason`: as in `Results`.
    - `error`: what is wrong with the row; null if it has items. It does not change the answers of other rows.

    Each process loads the model, and maps the index into memory, which processes of one machine share. Models on a GPU
    need ``num_gpus=1`` of `map_batches` and ``device="cuda"``.

    Args:
        model: a folder or a hub name; None, with `index`: those of the films demo.
        index: the folder of a saved index or a live index, which all machines see.
        version: the number of a version of a live index. Default: the one that is current when a process starts.
        sets: names for the column `sets`, and their SQL expressions.
        columns: the attributes of the items. Default: all.
        keep: names of further columns of the rows. Others are an error, because a misspelt rule must not be ignored.
        k: as for `hedgerow.Request`, for rows that have no value of their own; as all following arguments.
        beam_width: see `k`.
        where: an SQL expression that all items fulfil, in addition to those of the rows.
        exclude: ids of items that no row gets.
        candidates: ids of the items that rows may get; None: all.
        caps: see `k`.
        order_by: see `k`.
        repeat: whether rows may get the items of their history.
        fill: see `k`.
        **loading: normalize, temperature, pattern, end, device, dtype and others: as for `hedgerow retrieve` and
            `hedgerow.hf.Retriever`.

    Raises:
        HedgerowError: the model or the index cannot be loaded, or do not fit each other or the sets.

    Examples:
        ```python
        import pyarrow as pa
        from hedgerow.ray import Retrieve

        retrieve = Retrieve(None, None, k=3, sets={"new": "year >= 2000"}, columns=["title"])
        rows = pa.table({"prompt": ["Recommend me a western", ""], "sets": [["new"], None]})
        western, empty = retrieve(rows).to_pylist()
        assert len(western["items"]) == 3 and "empty" in empty["error"]
        ```

        Over two processes, for any dataset:

        ```python
        import ray.data

        dataset = ray.data.from_arrow(rows)
        answers = dataset.map_batches(
            Retrieve,
            fn_constructor_kwargs={"model": None, "index": None, "k": 3},
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=2),
        )
        ```
    """

    def __init__(
        self,
        model: str | Path | None,
        index: str | Path | None,
        *,
        version: int | None = None,
        sets: Mapping[str, str] = {},
        columns: Sequence[str] | None = None,
        keep: Sequence[str] = (),
        k: int | None = 10,
        beam_width: int = 50,
        where: str | None = None,
        exclude: Sequence[Any] = (),
        candidates: Sequence[Any] | None = None,
        caps: Mapping[str, int] | None = None,
        order_by: str | tuple[str, str] | None = None,
        repeat: bool = False,
        fill: bool = False,
        **loading: Any,
    ) -> None:
        self._options = RequestOptions(
            k=k,
            beam_width=beam_width,
            where=where,
            exclude=exclude,
            candidates=candidates,
            caps=caps or {},
            order_by=order_by,
            repeat=repeat,
            fill=fill,
        )
        self._columns = {*ROW_KEYS, *keep}
        self._retriever = Opening.of(model, index, version, loading).retriever()
        searched = self._retriever.index
        self._sets = sets_of(searched, {name: Rule(text, where=text) for name, text in sets.items()})
        names = searched.attributes.column_names
        unknown = next((name for name in columns or () if name not in names), None)
        if unknown is not None:
            raise ArgumentError(f"there is no attribute {unknown!r}{advice_on_name(unknown, names, 'attributes')}")
        self._table = searched.items_table.select([ITEM_ID, *(names if columns is None else columns)])

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Answer the rows of a batch.

        Args:
            rows: the requests.

        Returns:
            The rows with the columns that are added.

        Raises:
            ArgumentError: the batch is not an Arrow table, or has an unknown column.
        """
        import pyarrow as pa

        if not isinstance(rows, pa.Table):
            raise ArgumentError(
                f"Retrieve takes Arrow tables; got {type(rows).__name__}. Pass batch_format='pyarrow' to map_batches."
            )
        self._check_columns(rows.column_names)
        answers: list[Results | HedgerowError] = []
        for start in range(0, len(rows), ROWS_AT_ONCE):
            documents = rows.slice(start, ROWS_AT_ONCE).to_pylist()
            answers += answers_of(self._retriever, [self._request(document) for document in documents])
        found = [answer if isinstance(answer, Results) else None for answer in answers]
        added = {
            "items": _items(found, self._table),
            "complete": pa.array([None if each is None else each.complete for each in found], pa.bool_()),
            "reason": pa.array([None if each is None else each.reason for each in found], pa.string()),
            "error": pa.array([None if isinstance(each, Results) else str(each) for each in answers], pa.string()),
        }
        for name, column in added.items():
            rows = rows.append_column(name, column)
        return rows

    def _check_columns(self, names: Sequence[str]) -> None:
        """Check the columns of the rows.

        Raises:
            ArgumentError: one is unknown, or added.
        """
        unknown = next((name for name in names if name not in self._columns), None)
        if unknown is not None:
            advice = advice_on_name(unknown, ROW_KEYS, "columns")
            raise ArgumentError(f"unknown column {unknown!r}{advice} For columns of your own, pass keep=[{unknown!r}].")
        if taken := [name for name in ADDED if name in names]:
            raise ArgumentError(f"the rows have a column {taken[0]!r} already, which is added; rename it.")

    def _request(self, row: Mapping[str, Any]) -> Request | HedgerowError:
        """The request of a row, or what is wrong with it."""
        document = {name: value for name, value in row.items() if name in ROW_KEYS and value is not None}
        try:
            if "caps" in document:
                document["caps"] = {name: cap for name, cap in _pairs(document["caps"]) if cap is not None}
            checked = checked_document(document, "the row", ROW_KEYS)
            return request_of(self._retriever, checked, self._options, self._sets)
        except HedgerowError as error:
            return error


def _pairs(caps: Any) -> Any:
    """The entries of a struct, or of a map, which Arrow gives as pairs.

    Raises:
        ArgumentError: it is neither.
    """
    if isinstance(caps, Mapping):
        return caps.items()
    if isinstance(caps, list) and all(isinstance(pair, tuple) for pair in caps):
        return caps
    raise ArgumentError(f'"caps" must be a struct or a map of attributes and counts; got {caps!r}.')


def _items(found: Sequence[Results | None], table: pa.Table) -> pa.Array:
    """The items of results as a list of structs for each; null for None.

    Args:
        found: the results.
        table: the columns of all items of the index.
    """
    import pyarrow as pa

    from hedgerow.catalog.types import one_array

    results = [each for each in found if each is not None]
    rows = np.concatenate([np.zeros(0, np.int64), *(each.rows for each in results)])
    scores = np.concatenate([np.zeros(0, np.float32), *(each.scores for each in results)])
    taken = take_rows(table, rows)
    columns = {name: one_array(taken.column(name)) for name in table.column_names}
    columns = {ITEM_ID: columns.pop(ITEM_ID), "score": pa.array(scores), "sid": _sids(results)} | columns
    fields = [pa.field(name, column.type) for name, column in columns.items()]
    structs = pa.StructArray.from_arrays(list(columns.values()), fields=fields)
    lengths = [0 if each is None else len(each) for each in found]
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, structs, mask=pa.array([each is None for each in found]))


def _sids(results: Sequence[Results]) -> pa.Array:
    """The SIDs of all items as lists of int32, without padding."""
    import pyarrow as pa

    parts = [(each.sids[each.sids >= 0], (each.sids >= 0).sum(axis=1)) for each in results]
    codes = np.concatenate([np.zeros(0, np.int32), *(codes for codes, _ in parts)])
    lengths = np.concatenate([np.zeros(0, np.int64), *(lengths for _, lengths in parts)])
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, pa.array(codes.astype(np.int32)))
