"""Indexes and helpers that the tests of saved indexes share."""

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from naive import same_trie

import hedgerow as hr

# Two items share a SID; the three levels are dense, unary and sparse, and have codes of 1, 2 and 4 bytes.
CATALOG = hr.Catalog(
    [[1, 300, 69_999], [3, 2, 5], [1, 300, 5], [1, 300, 5]],
    codebook_sizes=[4, 1000, 70_000],
    item_ids=["c", "b", "d", "a"],
    attributes={"year": pa.array([2001, None, 2003, 2004], pa.int16()), "tags": [["x"], [], None, ["y", "z"]]},
)

OTHER = hr.Catalog([[1, 300, 69_999], [2, 2, 5], [1, 300, 6], [1, 300, 6]], codebook_sizes=[4, 1000, 70_000])

WAYS = [(False, None), (False, "none"), (False, "structure"), (True, None), (True, "none"), (True, "full")]


def same_index(left: hr.TrieIndex, right: hr.TrieIndex) -> bool:
    return same_trie(left, right) and left.items_table.equals(right.items_table)


def file_of(folder: Path, part: str) -> Path:
    return folder / "manifest.json" if part == "manifest" else next(folder.glob(f"{part}-*"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def load_error(folder: Path, **options: Any) -> str:
    with pytest.raises(hr.IndexFileError) as caught:
        hr.load_index(folder, **options)
    return str(caught.value)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


TRIE_HEADER = (
    b'{"allowed.0":{"dtype":"U32","shape":[1,1],"data_offsets":[0,4]},'
    b'"codes.2":{"dtype":"U32","shape":[3],"data_offsets":[4,16]},'
    b'"child_start.0":{"dtype":"I32","shape":[2],"data_offsets":[16,24]},'
    b'"child_start.2":{"dtype":"I32","shape":[3],"data_offsets":[24,36]},'
    b'"leaf_start":{"dtype":"I32","shape":[4],"data_offsets":[36,52]},'
    b'"codes.1":{"dtype":"U16","shape":[2],"data_offsets":[52,56]},'
    b'"codes.0":{"dtype":"U8","shape":[2],"data_offsets":[56,58]}}     '
)

TRIE = (
    bytes.fromhex("c001000000000000")  # the header has 448 bytes
    + TRIE_HEADER
    + bytes.fromhex("0a000000")  # allowed.0: codes 1 and 3
    + bytes.fromhex("05000000 6f110100 05000000")  # codes.2: 5, 69999; 5
    + bytes.fromhex("00000000 02000000")  # child_start.0: 0, 2
    + bytes.fromhex("00000000 02000000 03000000")  # child_start.2: 0, 2, 3
    + bytes.fromhex("00000000 02000000 03000000 04000000")  # leaf_start: 0, 2, 3, 4
    + bytes.fromhex("2c01 0200")  # codes.1: 300; 2
    + bytes.fromhex("01 03")  # codes.0: 1, 3
)
