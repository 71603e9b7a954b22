"""join_items writes the bytes that write_items writes for all items."""

import datetime as dt
import uuid
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

import hedgerow as hr
from hedgerow.catalog.columns import as_table
from hedgerow.index import items_on_disk
from hedgerow.index.items import write_items
from hedgerow.index.items_on_disk import join_items

ROWS = 1000


def column(kind: str, rng: np.random.Generator, *, nulls: float) -> pa.Array:
    values = rng.integers(0, 5, ROWS).tolist()
    plain = {
        "int": lambda value: value,
        "bool": lambda value: value > 2,
        "float": lambda value: value / 3,
        "text": lambda value: "é" * value,
        "bytes": lambda value: b"\0" * value,
        "when": lambda value: dt.datetime(2020, 1, 1 + value),
        "decimal": lambda value: Decimal(value) / 4,
        "uuid": lambda value: uuid.UUID(int=value),
        "list": lambda value: [str(value)] * value,
        "lists of nulls": lambda value: [None, value],
        "nested": lambda value: [{"a": [value] * value, "b": None if value == 1 else "b"}] * (value % 3),
        "struct": lambda value: {"wide": value, "label": None if value == 1 else "b" * value},
        "null": lambda _: None,
        "no lists": lambda _: [],
    }
    if kind in plain:
        return pa.array([None if rng.random() < nulls else plain[kind](value) for value in values])
    types = {
        "large text": (pa.large_string(), "text"),
        "large list": (pa.large_list(pa.string()), "list"),
        "fixed list": (pa.list_(pa.int16(), 2), "pair"),
        "fixed bytes": (pa.binary(3), "three"),
        "map": (pa.map_(pa.string(), pa.int32()), "map"),
        "date": (pa.date32(), "date"),
    }
    other = plain | {
        "pair": lambda value: [value, None],
        "three": lambda value: bytes([value] * 3),
        "map": lambda value: [(str(key), None if key == 1 else key) for key in range(value)],
        "date": lambda value: dt.date(2020, 1, 1 + value),
    }
    type_, name = types[kind]
    return pa.array([None if rng.random() < nulls else other[name](value) for value in values], type_)


KINDS = (
    *("int", "bool", "float", "text", "bytes", "when", "decimal", "uuid", "list", "lists of nulls", "nested", "struct"),
    *("null", "no lists", "large text", "large list", "fixed list", "fixed bytes", "map", "date"),
)


def joined_and_whole(table: pa.Table, cuts: list[int], folder) -> tuple[bytes, bytes]:
    """The file of joined parts, and the file of the whole table."""
    paths = []
    for number, (start, stop) in enumerate(zip([0, *cuts], [*cuts, len(table)], strict=True)):
        paths.append(folder / f"part-{number}")
        # Rows are taken, as in a build.
        write_items(table.take(pa.array(np.arange(start, stop))), paths[-1])
    sha256 = join_items(paths, folder / "joined", folder)
    assert write_items(table.take(pa.array(np.arange(len(table)))), folder / "whole") == sha256
    return (folder / "joined").read_bytes(), (folder / "whole").read_bytes()


@pytest.mark.parametrize("nulls", [0.0, 0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_bytes_equal_those_of_one_file(kind, nulls, tmp_path):
    rng = np.random.default_rng(len(kind))
    columns = {"values": column(kind, rng, nulls=nulls), "more": np.arange(ROWS)}
    table = as_table(columns, ROWS, reserved=(), copy=False)
    joined, whole = joined_and_whole(table, [1, 10, 203, 600, 999], tmp_path)
    assert joined == whole


LARGE = {"text": pa.large_string(), "list": pa.large_list(pa.field("element", pa.large_string()))}


@pytest.mark.parametrize("kind", [*LARGE, "nested"])
def test_offsets_that_do_not_fit_become_larger(kind, tmp_path, monkeypatch):
    """The types are those that one build gives text of more than 2 GiB; here the limit is 100 bytes."""
    table = as_table({"values": column(kind, np.random.default_rng(0), nulls=0.1)}, ROWS, reserved=(), copy=False)
    monkeypatch.setattr(items_on_disk, "MAX_OFFSET", 100)
    paths = [tmp_path / "0", tmp_path / "1"]
    for number, path in enumerate(paths):
        write_items(table.slice(number * 500, 500), path)
    if kind not in LARGE:
        with pytest.raises(hr.IndexFileError, match=r"column 'values' of list<.* too large"):
            join_items(paths, tmp_path / "joined", tmp_path)
        return
    join_items(paths, tmp_path / "joined", tmp_path)
    with pa.ipc.open_file(tmp_path / "joined") as file:
        found = file.read_all()
    assert found.schema.field("values").type == LARGE[kind]
    assert found.column("values").to_pylist() == table.column("values").to_pylist()
