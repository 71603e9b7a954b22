"""The file format, byte for byte."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from naive import same_trie
from saved import CATALOG, TRIE, WAYS, contents, file_of, ipc_bytes, sha256

import hedgerow as hr
from hedgerow.index.tensors import read_tensors, write_tensors

TRIE_SHA256 = "ce8c6f9a80d9ed96b9a11f54f5aa02e55955d7d72739d321b82fbc9950d0db8d"

CANONICAL = (
    '{"files":{"items":{"bytes":%d,"name":"items-%s.arrow","sha256":"%s"},'
    '"trie":{"bytes":594,"name":"trie-%s.safetensors","sha256":"%s"}},'
    '"format":"hedgerow","items":4,"levels":['
    '{"codebook_size":4,"dense":true,"max_branch":2,"nodes":2},'
    '{"codebook_size":1000,"dense":false,"max_branch":1,"nodes":2},'
    '{"codebook_size":70000,"dense":false,"max_branch":2,"nodes":3}],"version":2}'
)

MANIFEST = """{
 "files": {
  "items": {
   "bytes": %d,
   "name": "items-%s.arrow",
   "sha256": "%s"
  },
  "trie": {
   "bytes": 594,
   "name": "trie-%s.safetensors",
   "sha256": "%s"
  }
 },
 "format": "hedgerow",
 "items": 4,
 "levels": [
  {
   "codebook_size": 4,
   "dense": true,
   "max_branch": 2,
   "nodes": 2
  },
  {
   "codebook_size": 1000,
   "dense": false,
   "max_branch": 1,
   "nodes": 2
  },
  {
   "codebook_size": 70000,
   "dense": false,
   "max_branch": 2,
   "nodes": 3
  }
 ],
 "sha256": "%s",
 "version": 2
}
"""

ITEMS = {"item_id": ["a", "d", "c", "b"], "year": [2004, 2003, 2001, None], "tags": [["y", "z"], None, ["x"], []]}


def manifest_by_hand(items: bytes) -> str:
    items_sha, trie_sha = sha256(items), sha256(TRIE)
    names = (len(items), items_sha[:16], items_sha, trie_sha[:16], trie_sha)
    return MANIFEST % (*names, sha256((CANONICAL % names).encode()))


def test_format_is_unchanged(folder):
    items = file_of(folder, "items").read_bytes()
    assert sha256(TRIE) == TRIE_SHA256
    assert contents(folder) == {
        ".lock": b"",
        "manifest.json": manifest_by_hand(items).encode(),
        f"trie-{TRIE_SHA256[:16]}.safetensors": TRIE,
        f"items-{sha256(items)[:16]}.arrow": items,
    }
    # As another program reads it: an Arrow file with one record batch, whose columns are bytes of the file.
    with pa.ipc.open_file(items) as file:
        assert file.num_record_batches == 1
        table = file.read_all()
    assert np.asarray([2004, 2003, 2001, 0], "<i2").tobytes() in items
    assert table.to_pydict() == ITEMS
    assert [str(type_) for type_ in table.schema.types] == ["string", "int16", "list<element: string>"]


@pytest.mark.parametrize(("mmap", "verify"), WAYS)
def test_loads_a_folder_written_by_hand(index, mmap, verify, tmp_path):
    schema = pa.schema({"item_id": pa.string(), "year": pa.int16(), "tags": pa.list_(pa.field("element", pa.string()))})
    items = ipc_bytes(pa.table(ITEMS, schema=schema))
    (tmp_path / "manifest.json").write_text(manifest_by_hand(items))
    (tmp_path / f"trie-{sha256(TRIE)[:16]}.safetensors").write_bytes(TRIE)
    (tmp_path / f"items-{sha256(items)[:16]}.arrow").write_bytes(items)
    loaded = hr.load_index(tmp_path, mmap=mmap, verify=verify)
    assert same_trie(loaded, index)
    assert loaded.items_table.to_pydict() == ITEMS
    assert loaded.contains([[1, 300, 5], [3, 2, 5], [1, 2, 5]]).tolist() == [True, True, False]


def test_equal_indexes_give_equal_bytes(folder, tmp_path):
    shuffled = hr.Catalog(
        CATALOG.sids[::-1],
        codebook_sizes=CATALOG.codebook_sizes,
        item_ids=CATALOG.item_ids[::-1],
        attributes=CATALOG.attributes.take([3, 2, 1, 0]),
    )
    hr.build_index(shuffled).save(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(folder)


def test_files_have_default_permissions(folder, tmp_path):
    (tmp_path / "plain").touch()
    for path in folder.iterdir():
        assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_safetensors_library_reads_and_writes_the_same_bytes(folder):
    safetensors = pytest.importorskip("safetensors.numpy")
    tensors = safetensors.load_file(file_of(folder, "trie"))
    assert sorted(tensors) == sorted(
        ["codes.0", "child_start.0", "allowed.0", "codes.1", "codes.2", "child_start.2", "id_order", "leaf_start"]
    )
    assert safetensors.save(tensors) == file_of(folder, "trie").read_bytes()


def test_header_metadata_is_ignored():
    header = b'{"__metadata__":{"by":"hand"},"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    data = np.frombuffer(len(header).to_bytes(8, "little") + header + b"\7", np.uint8)
    assert {name: array.tolist() for name, array in read_tensors(data, Path("trie")).items()} == {"x": [7]}


def test_arrays_that_are_not_aligned_are_copied():
    header = b'{"x":{"dtype":"U32","shape":[1],"data_offsets":[0,4]}}'
    for padding in range(4):
        text = header + b" " * padding
        data = np.frombuffer(len(text).to_bytes(8, "little") + text + b"\7\0\0\0", np.uint8)
        array = read_tensors(data, Path("trie"))["x"]
        assert array.tolist() == [7]
        assert array.flags.aligned


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.int32])
def test_write_and_read_tensors(dtype, mmap, tmp_path):
    tensors = {"b": np.arange(6, dtype=dtype).reshape(2, 3).T, "a": np.zeros((0, 4), dtype), "c": np.ones(1, np.uint8)}
    write_tensors(tensors, tmp_path / "trie")
    data = np.memmap(tmp_path / "trie", np.uint8, "r") if mmap else np.fromfile(tmp_path / "trie", np.uint8)
    loaded = read_tensors(data, tmp_path / "trie")
    assert {name: (a.dtype, a.shape, a.tolist()) for name, a in loaded.items()} == {
        name: (a.dtype, a.shape, a.tolist()) for name, a in tensors.items()
    }
