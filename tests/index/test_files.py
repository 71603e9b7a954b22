"""The on-disk format: round trips, bytes that stay, damage that is told, and writers that stop half-way."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from naive import same_trie
from support import catalogs

import hedgerow as hr
from hedgerow.index.tensors import read_tensors, write_tensors
from hedgerow.index.trie import leaf_arrays

WAYS = [(False, None), (False, False), (True, None), (True, True)]

# Two items share a SID; the three levels are dense, unary and sparse, and have codes of 1, 2 and 4 bytes.
CATALOG = hr.Catalog(
    [[1, 300, 69_999], [3, 2, 5], [1, 300, 5], [1, 300, 5]],
    codebook_sizes=[4, 1000, 70_000],
    item_ids=["c", "b", "d", "a"],
    attributes={"year": pa.array([2001, None, 2003, 2004], pa.int16()), "tags": [["x"], [], None, ["y", "z"]]},
)
OTHER = hr.Catalog([[1, 300, 69_999], [2, 2, 5], [1, 300, 6], [1, 300, 6]], codebook_sizes=[4, 1000, 70_000])


def same_index(left: hr.TrieIndex, right: hr.TrieIndex) -> bool:
    return same_trie(left, right) and left.items_table.equals(right.items_table)


@pytest.fixture
def index() -> hr.TrieIndex:
    return hr.build_index(CATALOG)


@pytest.fixture
def folder(index: hr.TrieIndex, tmp_path: Path) -> Path:
    index.save(tmp_path / "index")
    return tmp_path / "index"


def file_of(folder: Path, part: str) -> Path:
    return folder / "manifest.json" if part == "manifest" else next(folder.glob(f"{part}-*"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def load_error(folder: Path, **options: Any) -> str:
    with pytest.raises(hr.IndexFileError) as caught:
        hr.load_index(folder, **options)
    return str(caught.value)


# Round trips


@pytest.mark.parametrize(("mmap", "verify"), WAYS)
def test_what_was_saved_is_loaded(index, folder, mmap, verify):
    assert [level.representation for level in index.levels] == ["dense", "unary", "sparse"]
    loaded = hr.load_index(str(folder), mmap=mmap, verify=verify)
    assert same_index(loaded, index)
    assert loaded.items_table.schema.equals(index.items_table.schema)
    assert loaded.item_ids.to_pylist() == ["a", "d", "c", "b"]
    assert loaded.attributes["tags"].to_pylist() == [["y", "z"], None, ["x"], []]
    assert repr(loaded) == repr(index)
    with pytest.raises(ValueError, match="read-only"):
        loaded.levels[0].codes[0] = 9


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(catalog=catalogs())
def test_every_catalog_comes_back(tmp_path, catalog):
    index = hr.build_index(catalog)
    index.save(tmp_path / "index")
    for mmap, verify in WAYS:
        assert same_index(hr.load_index(tmp_path / "index", mmap=mmap, verify=verify), index)


@pytest.mark.parametrize(("mmap", "verify"), WAYS)
@pytest.mark.parametrize("dense", ["auto", range(2)])
def test_an_empty_catalog_comes_back(dense, mmap, verify, tmp_path):
    catalog = hr.Catalog(np.zeros((0, 2), int), codebook_sizes=[4, 300], item_ids=[], attributes={"year": []})
    index = hr.build_index(catalog, dense_levels=dense)
    index.save(tmp_path / "index")
    assert same_index(hr.load_index(tmp_path / "index", mmap=mmap, verify=verify), index)


def test_all_items_on_one_leaf_and_many_levels_come_back(tmp_path):
    for name, sids in {"one leaf": [[1, 2]] * 5, "deep": [[0] * 255, [0] * 254 + [1]]}.items():
        index = hr.build_index(hr.Catalog(sids))
        index.save(tmp_path / name)
        assert same_index(hr.load_index(tmp_path / name), index)


def test_a_loaded_index_can_be_saved_anywhere_even_onto_itself(index, folder, tmp_path):
    for mmap in (False, True):
        loaded = hr.load_index(folder, mmap=mmap)
        loaded.save(folder)
        loaded.save(tmp_path / "copies" / str(mmap))
        assert contents(folder) == contents(tmp_path / "copies" / str(mmap))
        assert file_of(folder, "trie").read_bytes() == TRIE
        assert same_index(hr.load_index(folder), index)


@pytest.mark.parametrize("mmap", [False, True])
def test_a_loaded_index_outlives_its_files(index, folder, mmap):
    if os.name == "nt":
        pytest.skip("Windows does not remove files that are mapped")
    loaded = hr.load_index(folder, mmap=mmap)
    hr.build_index(OTHER).save(folder)
    shutil.rmtree(folder)
    assert same_index(loaded, index)


def test_the_same_index_makes_the_same_bytes(folder, tmp_path):
    shuffled = hr.Catalog(
        CATALOG.sids[::-1],
        codebook_sizes=CATALOG.codebook_sizes,
        item_ids=CATALOG.item_ids[::-1],
        attributes=CATALOG.attributes.take([3, 2, 1, 0]),
    )
    hr.build_index(shuffled).save(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(folder)


def test_every_file_can_be_read_by_whoever_may_read_new_files(folder, tmp_path):
    (tmp_path / "plain").touch()
    for path in folder.iterdir():
        assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_library_of_the_format_reads_and_writes_the_same_bytes(folder):
    safetensors = pytest.importorskip("safetensors.numpy")
    tensors = safetensors.load_file(file_of(folder, "trie"))
    assert sorted(tensors) == sorted(
        ["codes.0", "child_start.0", "allowed.0", "codes.1", "codes.2", "child_start.2", "leaf_start"]
    )
    assert safetensors.save(tensors) == file_of(folder, "trie").read_bytes()


# The format, byte for byte

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
TRIE_SHA256 = "76e6e1b07ef7a9c4bb735b89b67df13e2f78501418d63ae5b22d13c0808ddc21"
CANONICAL = (
    '{"files":{"items":{"bytes":%d,"name":"items-%s.parquet","sha256":"%s"},'
    '"trie":{"bytes":514,"name":"trie-%s.safetensors","sha256":"%s"}},'
    '"format":"hedgerow","items":4,"levels":['
    '{"codebook_size":4,"dense":true,"max_branch":2,"nodes":2},'
    '{"codebook_size":1000,"dense":false,"max_branch":1,"nodes":2},'
    '{"codebook_size":70000,"dense":false,"max_branch":2,"nodes":3}],"version":1}'
)
MANIFEST = """{
 "files": {
  "items": {
   "bytes": %d,
   "name": "items-%s.parquet",
   "sha256": "%s"
  },
  "trie": {
   "bytes": 514,
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
 "version": 1
}
"""
ITEMS = {"item_id": ["a", "d", "c", "b"], "year": [2004, 2003, 2001, None], "tags": [["y", "z"], None, ["x"], []]}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def manifest_by_hand(items: bytes) -> str:
    items_sha, trie_sha = sha256(items), sha256(TRIE)
    names = (len(items), items_sha[:16], items_sha, trie_sha[:16], trie_sha)
    return MANIFEST % (*names, sha256((CANONICAL % names).encode()))


def test_the_format_stays_as_it_is(folder):
    items = file_of(folder, "items").read_bytes()
    assert sha256(TRIE) == TRIE_SHA256
    assert contents(folder) == {
        ".lock": b"",
        "manifest.json": manifest_by_hand(items).encode(),
        f"trie-{TRIE_SHA256[:16]}.safetensors": TRIE,
        f"items-{sha256(items)[:16]}.parquet": items,
    }
    table = pq.read_table(file_of(folder, "items"))
    assert table.to_pydict() == ITEMS
    assert [str(type_) for type_ in table.schema.types] == ["string", "int16", "list<element: string>"]


@pytest.mark.parametrize(("mmap", "verify"), WAYS)
def test_a_folder_made_by_hand_is_read(index, mmap, verify, tmp_path):
    schema = pa.schema({"item_id": pa.string(), "year": pa.int16(), "tags": pa.list_(pa.field("element", pa.string()))})
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(ITEMS, schema=schema), sink)
    items = sink.getvalue().to_pybytes()
    (tmp_path / "manifest.json").write_text(manifest_by_hand(items))
    (tmp_path / f"trie-{sha256(TRIE)[:16]}.safetensors").write_bytes(TRIE)
    (tmp_path / f"items-{sha256(items)[:16]}.parquet").write_bytes(items)
    loaded = hr.load_index(tmp_path, mmap=mmap, verify=verify)
    assert same_trie(loaded, index)
    assert loaded.items_table.to_pydict() == ITEMS
    assert loaded.contains([[1, 300, 5], [3, 2, 5], [1, 2, 5]]).tolist() == [True, True, False]


# What stands in the way of a save


def test_an_index_is_replaced_and_stale_files_are_swept(folder):
    for stale in ("trie-new", "items-new", "manifest-new", f"trie-{'0' * 16}.safetensors", f"items-{'f' * 16}.parquet"):
        (folder / stale).write_bytes(b"half")
    other = hr.build_index(OTHER)
    other.save(folder)
    assert same_index(hr.load_index(folder), other)
    assert len(contents(folder)) == 4
    assert not any(b"half" in content for content in contents(folder).values())


@pytest.mark.parametrize(
    "damage", [b"", b"{", b'{"format": "hedgerow", "version": 99}', "cut", "trie gone", "items gone", "no lock"]
)
def test_a_damaged_index_can_be_replaced(index, folder, damage):
    manifest = folder / "manifest.json"
    if isinstance(damage, bytes):
        manifest.write_bytes(damage)
    elif damage == "cut":
        manifest.write_bytes(manifest.read_bytes()[:100])
    elif damage == "no lock":
        (folder / ".lock").unlink()
    else:
        file_of(folder, damage.split()[0]).unlink()
    index.save(folder)
    assert same_index(hr.load_index(folder), index)


@pytest.mark.parametrize("name", ["notes.txt", "trie-abc.safetensors", "items.parquet", "model.safetensors", ".git"])
def test_a_foreign_folder_is_left_alone(index, folder, name):
    for target in (folder, folder.parent / "fresh"):
        target.mkdir(exist_ok=True)
        (target / name).write_bytes(b"mine")
        before = contents(target)
        with pytest.raises(hr.IndexFileError, match=f"holds '{name}'.*another path"):
            index.save(target)
        assert contents(target) == before


def test_a_foreign_manifest_is_left_alone(index, tmp_path):
    (tmp_path / "manifest.json").write_text('{"name": "a web page"}')
    with pytest.raises(hr.IndexFileError, match=r"holds 'manifest.json'.*another path"):
        index.save(tmp_path)
    assert contents(tmp_path) == {"manifest.json": b'{"name": "a web page"}'}


def test_a_file_is_left_alone(index, tmp_path):
    (tmp_path / "index").write_bytes(b"mine")
    with pytest.raises(hr.IndexFileError, match=r"is a file.*another path"):
        index.save(tmp_path / "index")
    with pytest.raises(hr.IndexFileError, match="cannot be saved"):
        index.save(tmp_path / "index" / "below")
    assert (tmp_path / "index").read_bytes() == b"mine"


def test_parent_folders_are_made(index, tmp_path):
    index.save(tmp_path / "a" / "b" / "c")
    assert same_index(hr.load_index(tmp_path / "a" / "b" / "c"), index)


def test_attributes_that_parquet_cannot_hold_leave_the_old_index(folder):
    before = contents(folder)
    unsavable = hr.build_index(hr.Catalog([[1], [2]], attributes={"nothing": [{}, {}]}))
    with pytest.raises(hr.IndexFileError, match="attributes cannot be written as Parquet"):
        unsavable.save(folder)
    assert contents(folder) == before


# Damage


@pytest.mark.parametrize("part", ["trie", "items", "manifest"])
@pytest.mark.parametrize(("mmap", "verify"), WAYS)
def test_a_file_cut_short_is_told(folder, part, mmap, verify):
    path = file_of(folder, part)
    whole = path.read_bytes()
    # The last byte of the manifest is a line end, which says nothing.
    for length in {0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 3, len(whole) - 2}:
        path.write_bytes(whole[:length])
        message = load_error(folder, mmap=mmap, verify=verify)
        assert str(path) in message
        assert "again" in message or "damaged" in message


@pytest.mark.parametrize("part", ["trie", "items"])
@pytest.mark.parametrize(("mmap", "verify"), WAYS)
def test_a_file_that_grew_is_told(folder, part, mmap, verify):
    with open(file_of(folder, part), "ab") as file:
        file.write(b"\0")
    assert "bytes, but should have" in load_error(folder, mmap=mmap, verify=verify)


@pytest.mark.parametrize("part", ["trie", "items", "manifest"])
@pytest.mark.parametrize("mmap", [False, True])
def test_a_flipped_bit_is_told(index, folder, part, mmap):
    path = file_of(folder, part)
    whole = path.read_bytes()
    for at in range(0, len(whole), 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        try:
            loaded = hr.load_index(folder, mmap=mmap, verify=True)
        except hr.IndexFileError:
            continue
        # Only where the JSON means the same: one white space in place of another.
        assert part == "manifest"
        assert same_index(loaded, index)


def test_a_header_damaged_in_any_way_never_raises_anything_else(folder):
    path = file_of(folder, "trie")
    whole = path.read_bytes()
    told = 0
    for at in range(8 + len(TRIE_HEADER)):
        for byte in b'\xff0"}':
            path.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
            try:
                hr.load_index(folder, verify=False)
            except hr.IndexFileError:
                told += 1
    assert told > len(TRIE_HEADER)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[]",
        b"5",
        b"null",
        b"{}",
        b'{"codes.0":5}',
        b'{"codes.0":{}}',
        b'{"codes.0":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}',
        b'{"codes.0":{"dtype":["U8"],"shape":[0],"data_offsets":[0,0]}}',
        b'{"codes.0":{"dtype":"U8","shape":[1],"data_offsets":[0,99]}}',
        b'{"codes.0":{"dtype":"U8","shape":[4],"data_offsets":[-4,0]}}',
        b'{"codes.0":{"dtype":"U8","shape":[-1,-4],"data_offsets":[0,4]}}',
        b'{"codes.0":{"dtype":"U8","shape":[4.0],"data_offsets":[0,4]}}',
        b'{"codes.0":{"dtype":"U8","shape":[4],"data_offsets":[0.0,4]}}',
        b'{"codes.0":{"dtype":"U8","shape":[4],"data_offsets":[0]}}',
        b'{"codes.0":{"dtype":"U8","shape":[4],"data_offsets":"04"}}',
        b'{"codes.0":{"dtype":"U8","shape":[1e999],"data_offsets":[0,4]}}',
        b'{"a":' * 50_000,
        b"\xff\xfe",
    ],
)
@pytest.mark.parametrize("mmap", [False, True])
def test_headers_that_are_not_ours(header, mmap, tmp_path):
    for length in (len(header), 2**63, 2**64 - 1):
        (tmp_path / "trie").write_bytes(length.to_bytes(8, "little") + header + b"\0\0\0\0")
        if length == len(header) and header == b"{}":
            assert read_tensors(tmp_path / "trie", mmap=mmap) == {}
            continue
        with pytest.raises(hr.IndexFileError, match="damaged"):
            read_tensors(tmp_path / "trie", mmap=mmap)


def test_metadata_of_a_header_is_passed_over(tmp_path):
    header = b'{"__metadata__":{"by":"hand"},"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    (tmp_path / "trie").write_bytes(len(header).to_bytes(8, "little") + header + b"\7")
    assert {name: array.tolist() for name, array in read_tensors(tmp_path / "trie", mmap=False).items()} == {"x": [7]}


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.int32])
def test_tensors_come_back(dtype, mmap, tmp_path):
    tensors = {"b": np.arange(6, dtype=dtype).reshape(2, 3).T, "a": np.zeros((0, 4), dtype), "c": np.ones(1, np.uint8)}
    write_tensors(tensors, tmp_path / "trie")
    loaded = read_tensors(tmp_path / "trie", mmap=mmap)
    assert {name: (a.dtype, a.shape, a.tolist()) for name, a in loaded.items()} == {
        name: (a.dtype, a.shape, a.tolist()) for name, a in tensors.items()
    }


@pytest.mark.parametrize("part", ["trie", "items", "manifest"])
@pytest.mark.parametrize("mmap", [False, True])
def test_a_file_that_is_gone_is_told(folder, part, mmap):
    path = file_of(folder, part)
    path.unlink()
    assert path.name in load_error(folder, mmap=mmap)
    path.mkdir()
    assert path.name in load_error(folder, mmap=mmap)


def test_no_index_at_all(tmp_path):
    assert "does not exist" in load_error(tmp_path / "missing")
    assert "holds no manifest.json" in load_error(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    assert "is a file; a saved index is a folder" in load_error(tmp_path / "file")


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        "null",
        "5",
        '"hedgerow"',
        '{"format": "other", "version": 1}',
        '{"format": "hedgerow"}',
        '{"format": "hedgerow", "version": "x"}',
        '{"format": "hedgerow", "version": null}',
        '{"format": "hedgerow", "version": 1e999}',
        '{"format": "hedgerow", "version": NaN}',
        '{"format": "hedgerow", "version": 1}',
        '{"format": "hedgerow", "version": 1, "sha256": 5}',
        "[" * 100_000,
        "\0" * 1000,
    ],
)
def test_manifests_that_are_not_ours(folder, text):
    (folder / "manifest.json").write_text(text)
    message = load_error(folder)
    assert "manifest.json" in message
    assert "damaged" in message


def test_a_newer_format_asks_for_a_newer_library(folder):
    manifest = json.loads((folder / "manifest.json").read_bytes()) | {"version": 2, "sha256": "?", "new": 1}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    message = load_error(folder)
    assert "version 2" in message
    assert "up to 1" in message
    assert "Upgrade" in message


def altered(manifest: dict[str, Any], *path: Any, to: Any) -> dict[str, Any]:
    changed = json.loads(json.dumps(manifest))
    place = changed
    for key in path[:-1]:
        place = place[key]
    assert place[path[-1]] != to
    place[path[-1]] = to
    return changed


ALTERED = [
    (("items",), 5),
    (("items",), 3),
    (("levels", 0, "nodes"), 3),
    (("levels", 2, "nodes"), 2),
    (("levels", 0, "dense"), False),
    (("levels", 1, "dense"), True),
    (("levels", 0, "codebook_size"), 65),
    (("levels", 1, "codebook_size"), 200),
    (("levels", 1, "codebook_size"), 70_000),
    (("levels",), []),
    (("files", "trie", "bytes"), 513),
    (("files", "items", "bytes"), 1),
    (("files", "trie", "name"), "trie-0000000000000000.safetensors"),
    (("files", "trie", "sha256"), "0" * 64),
    (("files", "items", "sha256"), "0" * 64),
]


@pytest.mark.parametrize(("path", "value"), [*ALTERED, (("levels", 0, "max_branch"), 1)])
def test_an_altered_manifest_is_told(folder, path, value):
    manifest = json.loads((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_text(json.dumps(altered(manifest, *path, to=value)))
    assert "checksum differs" in load_error(folder, mmap=True)


@pytest.mark.parametrize(("path", "value"), ALTERED)
def test_a_manifest_altered_with_its_checksum_does_not_fit_its_files(folder, path, value):
    manifest = altered(json.loads((folder / "manifest.json").read_bytes()), *path, to=value)
    del manifest["sha256"]
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    (folder / "manifest.json").write_text(json.dumps(manifest | {"sha256": sha256(canonical.encode())}))
    load_error(folder, verify=True)


@pytest.mark.parametrize("part", ["trie", "items"])
@pytest.mark.parametrize("mmap", [False, True])
def test_the_files_of_another_index_are_told(folder, part, mmap, tmp_path):
    hr.build_index(OTHER).save(tmp_path / "other")
    shutil.copy(file_of(tmp_path / "other", part), file_of(folder, part))
    assert file_of(folder, part).name in load_error(folder, mmap=mmap, verify=True)


def test_the_manifest_of_another_index_is_told(folder, tmp_path):
    hr.build_index(OTHER).save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "manifest.json", folder)
    assert "missing" in load_error(folder)


def test_items_of_another_index_are_told_when_they_are_read(folder):
    table = pa.table({"item_id": ["x"]})
    for wrong in (table, pa.table({"other": ["a", "b", "c", "d"]})):
        sink = pa.BufferOutputStream()
        pq.write_table(wrong, sink)
        content = sink.getvalue().to_pybytes()
        file_of(folder, "items").write_bytes(content)
        manifest = json.loads((folder / "manifest.json").read_bytes())
        manifest["files"]["items"] |= {"bytes": len(content), "sha256": sha256(content)}
        del manifest["sha256"]
        canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
        (folder / "manifest.json").write_text(json.dumps(manifest | {"sha256": sha256(canonical.encode())}))
        loaded = hr.load_index(folder)
        with pytest.raises(hr.IndexFileError, match="4 items"):
            loaded.items_table  # noqa: B018


# Writers that stop, and readers and writers at one time


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork to stop a process in the middle of a save")
@pytest.mark.parametrize("how", ["killed", "failed"])
@pytest.mark.parametrize("first", [False, True])
def test_a_save_that_stops_anywhere_leaves_the_old_index_or_the_new(how, first, tmp_path):
    script = Path(__file__).parents[1] / "crash.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), how, str(first)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rounds = json.loads(done.stdout)
    old = [["a", "b", "c"], [[0, 1], [2, 0]]]
    new = [[4, 1, 3, 2], [[1, 1], [3, 0], [3, 2], [3, 3]]]
    assert len(rounds) > 12
    assert {entry["code"] for entry in rounds[:-1]} <= ({9} if how == "killed" else {1, 2})
    # Making a folder that is there already is the one failure that does not matter.
    assert [at for at, entry in enumerate(rounds) if entry["code"] == 2] == ([] if first or how == "killed" else [0])
    rounds = [entry for entry in rounds if entry["code"] != 2]
    # Up to one operation all is as before; from it on all is new.
    turn = next(at for at, entry in enumerate(rounds) if entry["loaded"] == new)
    assert 8 < turn < len(rounds)
    for entry in rounds[:turn]:
        if first:
            assert "does not exist" in entry["loaded"] or "holds no manifest.json" in entry["loaded"]
        else:
            assert entry["loaded"] == old
    assert all(entry["loaded"] == new for entry in rounds[turn:])
    for entry in rounds:
        assert entry["again"] == new
        assert len(entry["end"]) == 4
        assert how == "killed" or entry["left"] == []


@pytest.mark.parametrize("mmap", [False, True])
def test_a_reader_sees_one_index_or_the_other_while_they_are_saved(index, folder, mmap):
    indexes = [index, hr.build_index(OTHER)]
    stop = threading.Event()
    failures: list[BaseException] = []

    def write() -> None:
        try:
            for round_ in range(30):
                indexes[round_ % 2].save(folder)
        except BaseException as error:
            failures.append(error)
        finally:
            stop.set()

    writer = threading.Thread(target=write)
    writer.start()
    loads = 0
    while not stop.is_set() or loads < 2:
        loaded = hr.load_index(folder, mmap=mmap, verify=True)
        assert any(same_index(loaded, one) for one in indexes)
        loads += 1
    writer.join()
    assert failures == []


def test_two_writers_take_turns(index, tmp_path):
    indexes = [index, hr.build_index(OTHER)]
    failures: list[BaseException] = []

    def write(one: hr.TrieIndex) -> None:
        try:
            for _ in range(15):
                one.save(tmp_path / "index")
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(one,)) for one in indexes]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert failures == []
    assert any(same_index(hr.load_index(tmp_path / "index"), one) for one in indexes)
    assert len(contents(tmp_path / "index")) == 4


def test_uuids_and_no_collisions_come_back(tmp_path):
    ids = [uuid.UUID(int=number) for number in (3, 1, 2)]
    index = hr.build_index(hr.Catalog([[0], [2], [1]], item_ids=ids))
    index.save(tmp_path / "index")
    assert hr.load_index(tmp_path / "index").item_ids.to_pylist() == [ids[0], ids[2], ids[1]]


def test_a_path_means_what_it_means_to_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    index = hr.build_index(hr.Catalog([[0, 1]]))
    index.save("a:b")
    assert hr.load_index(tmp_path / "a:b").num_items == 1
    index.save("~/x")
    assert hr.load_index(tmp_path / "home" / "x").num_items == 1
    assert sorted(os.listdir(tmp_path)) == ["a:b", "home"]
    for path in (None, 3, "a\0b", "\ud800"):
        with pytest.raises(hr.ArgumentError, match="path"):
            index.save(path)
        with pytest.raises(hr.ArgumentError, match="path"):
            hr.load_index(path)  # pyright: ignore


@pytest.mark.parametrize(
    ("name", "content"), [(".lock", "not ours"), ("manifest.json", '{"dependencies": {"hedgerow": "^1.0"}}')]
)
def test_files_of_others_by_our_names_stay(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    (tmp_path / "trie-new").write_text("left by a crash")
    with pytest.raises(hr.IndexFileError, match="is not part of an index"):
        hr.build_index(hr.Catalog([[0, 1]])).save(tmp_path)
    assert (tmp_path / name).read_text() == content


def test_what_links_lead_to_stays(tmp_path):
    target = tmp_path / "precious"
    target.write_text("mine")
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "trie-new").symlink_to(target)
    index = hr.build_index(hr.Catalog([[0, 1]]))
    index.save(folder)
    assert target.read_text() == "mine"
    (folder / ".lock").unlink()
    (folder / ".lock").symlink_to(tmp_path / "nowhere")
    with pytest.raises(hr.IndexFileError):
        index.save(folder)
    assert not (tmp_path / "nowhere").exists()


def test_built_arrays_are_frozen():
    index = hr.build_index(hr.Catalog([[0, 1], [0, 2], [0, 2]]))
    for array in [*index.levels[0].arrays.values(), *index.levels[1].arrays.values(), *leaf_arrays(index).values()]:
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 9


@pytest.mark.parametrize("version", [0, -1, 1.0, 1.9, "1", True, None])
def test_a_version_is_a_number_from_1_on(folder, version):
    manifest = json.loads((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"version": version}))
    assert "is not the manifest of a hedgerow index" in load_error(folder, mmap=True)
