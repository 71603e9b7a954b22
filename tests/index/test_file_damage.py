"""Loading rejects every damaged, altered or foreign file."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from saved import OTHER, TRIE_HEADER, WAYS, file_of, ipc_bytes, load_error, replace_part, same_index, sha256

import hedgerow as hr
from hedgerow.index.tensors import read_tensors


@pytest.mark.parametrize("part", ["trie", "items", "manifest"])
@pytest.mark.parametrize(("mmap", "verify"), WAYS)
def test_rejects_a_truncated_file(folder, part, mmap, verify):
    path = file_of(folder, part)
    whole = path.read_bytes()
    # The last byte of the manifest is a line break, which has no meaning.
    for length in {0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 3, len(whole) - 2}:
        path.write_bytes(whole[:length])
        message = load_error(folder, mmap=mmap, verify=verify)
        assert str(path) in message
        assert "again" in message or "damaged" in message


@pytest.mark.parametrize("part", ["trie", "items"])
@pytest.mark.parametrize(("mmap", "verify"), WAYS)
def test_rejects_a_file_that_grew(folder, part, mmap, verify):
    with open(file_of(folder, part), "ab") as file:
        file.write(b"\0")
    assert "bytes, but should have" in load_error(folder, mmap=mmap, verify=verify)


@pytest.mark.parametrize("part", ["trie", "items", "manifest"])
@pytest.mark.parametrize("mmap", [False, True])
def test_rejects_a_flipped_bit(index, folder, part, mmap):
    path = file_of(folder, part)
    whole = path.read_bytes()
    for position in range(0, len(whole), 3):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << position % 8]) + whole[position + 1 :])
        try:
            loaded = hr.load_index(folder, mmap=mmap, verify="full")
        except hr.IndexFileError:
            continue
        # The index loads only if the JSON has the same meaning: another white space character.
        assert part == "manifest"
        assert same_index(loaded, index)


def test_damaged_header_raises_only_index_file_error(folder):
    path = file_of(folder, "trie")
    whole = path.read_bytes()
    rejected = 0
    for position in range(8 + len(TRIE_HEADER)):
        for byte in b'\xff0"}':
            path.write_bytes(whole[:position] + bytes([byte]) + whole[position + 1 :])
            try:
                hr.load_index(folder, verify="none")
            except hr.IndexFileError:
                rejected += 1
    assert rejected > len(TRIE_HEADER)


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
        b'{"codes.0":{"dtype":"U8","shape":[0,%d],"data_offsets":[0,0]}}' % (2**70),
        b'{"a":' * 50_000,
        b"\xff\xfe",
    ],
)
def test_rejects_invalid_headers(header):
    for length in (len(header), 2**63, 2**64 - 1):
        data = np.frombuffer(length.to_bytes(8, "little") + header + b"\0\0\0\0", np.uint8)
        if length == len(header) and header == b"{}":
            assert read_tensors(data, Path("trie")) == {}
            continue
        with pytest.raises(hr.IndexFileError, match="damaged"):
            read_tensors(data, Path("trie"))


@pytest.mark.parametrize("part", ["trie", "items", "manifest"])
@pytest.mark.parametrize("mmap", [False, True])
def test_rejects_a_missing_file(folder, part, mmap):
    path = file_of(folder, part)
    path.unlink()
    assert path.name in load_error(folder, mmap=mmap)
    path.mkdir()
    assert path.name in load_error(folder, mmap=mmap)


def test_rejects_paths_without_an_index(tmp_path):
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
def test_rejects_foreign_manifests(folder, text):
    (folder / "manifest.json").write_text(text)
    message = load_error(folder)
    assert "manifest.json" in message
    assert "damaged" in message


def test_rejects_a_newer_format(folder):
    manifest = json.loads((folder / "manifest.json").read_bytes()) | {"version": 4, "sha256": "?", "new": 1}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    message = load_error(folder)
    assert "version 4" in message
    assert "up to 3" in message
    assert "Upgrade" in message


@pytest.mark.parametrize("version", [0, -1, 1.0, 1.9, "1", True, None])
def test_rejects_invalid_format_versions(folder, version):
    manifest = json.loads((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"version": version}))
    assert "is not the manifest of a hedgerow index" in load_error(folder, mmap=True)


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
    (("files", "trie", "bytes"), 593),
    (("files", "items", "bytes"), 1),
    (("files", "trie", "name"), "trie-0000000000000000.safetensors"),
    (("files", "trie", "sha256"), "0" * 64),
    (("files", "items", "sha256"), "0" * 64),
]


@pytest.mark.parametrize(("path", "value"), [*ALTERED, (("levels", 0, "max_branch"), 1)])
def test_rejects_an_altered_manifest(folder, path, value):
    manifest = json.loads((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_text(json.dumps(altered(manifest, *path, to=value)))
    assert "checksum differs" in load_error(folder, mmap=True)


@pytest.mark.parametrize(("path", "value"), ALTERED)
def test_rejects_an_altered_manifest_with_a_correct_checksum(folder, path, value):
    manifest = altered(json.loads((folder / "manifest.json").read_bytes()), *path, to=value)
    del manifest["sha256"]
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    (folder / "manifest.json").write_text(json.dumps(manifest | {"sha256": sha256(canonical.encode())}))
    load_error(folder, verify="full")


@pytest.mark.parametrize("part", ["trie", "items"])
@pytest.mark.parametrize("mmap", [False, True])
def test_rejects_the_files_of_another_index(folder, part, mmap, tmp_path):
    hr.build_index(OTHER).save(tmp_path / "other")
    shutil.copy(file_of(tmp_path / "other", part), file_of(folder, part))
    assert file_of(folder, part).name in load_error(folder, mmap=mmap, verify="full")


def test_rejects_the_manifest_of_another_index(folder, tmp_path):
    hr.build_index(OTHER).save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "manifest.json", folder)
    assert "missing" in load_error(folder)


@pytest.mark.parametrize("mmap", [False, True])
def test_rejects_items_of_another_index(folder, mmap):
    ids = ["a", "d", "c", "b"]
    two_named = pa.Table.from_arrays([pa.array(ids), pa.array(ids)], ["item_id", "item_id"])
    for wrong in (pa.table({"item_id": ["x"]}), pa.table({"other": ids}), two_named):
        replace_part(folder, "items", ipc_bytes(wrong))
        assert "4 items" in load_error(folder, mmap=mmap, verify="none")
