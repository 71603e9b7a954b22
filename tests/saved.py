"""Indexes and helpers that the tests of saved indexes share."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from naive import same_trie

import hedgerow as hr
from hedgerow.index.manifest import digest_of

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
    b'"id_order":{"dtype":"I32","shape":[4],"data_offsets":[36,52]},'
    b'"leaf_start":{"dtype":"I32","shape":[4],"data_offsets":[52,68]},'
    b'"codes.1":{"dtype":"U16","shape":[2],"data_offsets":[68,72]},'
    b'"codes.0":{"dtype":"U8","shape":[2],"data_offsets":[72,74]}}       '
)

TRIE = (
    bytes.fromhex("0002000000000000")  # the header has 512 bytes
    + TRIE_HEADER
    + bytes.fromhex("0a000000")  # allowed.0: codes 1 and 3
    + bytes.fromhex("05000000 6f110100 05000000")  # codes.2: 5, 69999; 5
    + bytes.fromhex("00000000 02000000")  # child_start.0: 0, 2
    + bytes.fromhex("00000000 02000000 03000000")  # child_start.2: 0, 2, 3
    + bytes.fromhex("00000000 03000000 02000000 01000000")  # id_order: a, b, c, d
    + bytes.fromhex("00000000 02000000 03000000 04000000")  # leaf_start: 0, 2, 3, 4
    + bytes.fromhex("2c01 0200")  # codes.1: 300; 2
    + bytes.fromhex("01 03")  # codes.0: 1, 3
)

# A live index that hedgerow wrote in format version 1: CATALOG with a column of timestamps, then without item b.
FORMAT_1 = Path(__file__).parent / "index" / "data" / "format-1.live"


def ipc_bytes(table: pa.Table) -> bytes:
    """A table as the content of an Arrow IPC file."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def replace_part(folder: Path, part: str, content: bytes) -> None:
    """Replace a data file of an index, with correct checksums."""
    file_of(folder, part).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"][part] |= {"bytes": len(content), "sha256": sha256(content)}
    (folder / "manifest.json").write_text(json.dumps(manifest | {"sha256": digest_of(manifest)}))
