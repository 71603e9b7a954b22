"""Save and load: round trips, and what a save replaces or refuses to replace."""

import dataclasses
import os
import shutil
import uuid

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from saved import OTHER, TRIE, WAYS, contents, file_of, load_error, same_index
from support import catalogs

import hedgerow as hr
from hedgerow.index.trie import leaf_arrays


@pytest.mark.parametrize(("mmap", "verify"), WAYS)
def test_save_and_load(index, folder, mmap, verify):
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
def test_save_and_load_every_catalog(tmp_path, catalog):
    index = hr.build_index(catalog)
    index.save(tmp_path / "index")
    for mmap, verify in WAYS:
        assert same_index(hr.load_index(tmp_path / "index", mmap=mmap, verify=verify), index)


@pytest.mark.parametrize(("mmap", "verify"), WAYS)
@pytest.mark.parametrize("dense", ["auto", range(2)])
def test_save_and_load_an_empty_catalog(dense, mmap, verify, tmp_path):
    catalog = hr.Catalog(np.zeros((0, 2), int), codebook_sizes=[4, 300], item_ids=[], attributes={"year": []})
    index = hr.build_index(catalog, dense_levels=dense)
    index.save(tmp_path / "index")
    assert same_index(hr.load_index(tmp_path / "index", mmap=mmap, verify=verify), index)


def test_save_and_load_one_leaf_and_many_levels(tmp_path):
    for name, sids in {"one leaf": [[1, 2]] * 5, "deep": [[0] * 255, [0] * 254 + [1]]}.items():
        index = hr.build_index(hr.Catalog(sids))
        index.save(tmp_path / name)
        assert same_index(hr.load_index(tmp_path / name), index)


def test_save_and_load_uuids_without_collisions(tmp_path):
    ids = [uuid.UUID(int=number) for number in (3, 1, 2)]
    index = hr.build_index(hr.Catalog([[0], [2], [1]], item_ids=ids))
    index.save(tmp_path / "index")
    assert hr.load_index(tmp_path / "index").item_ids.to_pylist() == [ids[0], ids[2], ids[1]]


@pytest.mark.parametrize(
    "kind",
    [
        pa.timestamp("s"),
        pa.timestamp("s", "Europe/Berlin"),
        pa.timestamp("ns", "UTC"),
        pa.date64(),
        pa.time32("s"),
        pa.duration("s"),
        pa.list_(pa.field("element", pa.timestamp("s"))),
        pa.struct([("a", pa.date64()), ("b", pa.list_(pa.field("element", pa.time32("s"))))]),
        pa.map_(pa.string(), pa.timestamp("s")),
        pa.large_string(),
        pa.uint32(),
        pa.binary(2),
    ],
    ids=str,
)
def test_attributes_and_ids_keep_their_types(kind, tmp_path):
    ids = None
    if not pa.types.is_nested(kind):
        ids = pa.array([example_of(kind), None], kind).fill_null(pa.scalar(OTHERS[kind.id], kind))
    attributes = {"x": pa.array([example_of(kind), None], kind)}
    index = hr.build_index(hr.Catalog([[0], [1]], item_ids=ids, attributes=attributes))
    index.save(tmp_path / "index")
    for mmap in (False, True):
        loaded = hr.load_index(tmp_path / "index", mmap=mmap)
        assert loaded.items_table.schema == index.items_table.schema
        assert loaded.items_table.equals(index.items_table)
        loaded.save(tmp_path / "again")
        assert hr.load_index(tmp_path / "again").items_table.equals(index.items_table)


OTHERS = {
    pa.timestamp("s").id: 9,
    pa.date64().id: 9 * 86_400_000,
    pa.time32("s").id: 9,
    pa.duration("s").id: 9,
    pa.large_string().id: "z",
    pa.uint32().id: 9,
    pa.binary(2).id: b"zz",
}


def example_of(kind):
    """A Python value of an Arrow type."""
    if pa.types.is_struct(kind):
        return {field.name: example_of(field.type) for field in kind}
    if pa.types.is_map(kind):
        return [("k", example_of(kind.item_type))]
    if pa.types.is_list(kind):
        return [example_of(kind.value_type)]
    if pa.types.is_fixed_size_binary(kind) or pa.types.is_large_string(kind):
        return "ab"
    return 86_400_000 if pa.types.is_date(kind) else 5


def test_loaded_index_can_be_saved_onto_itself(index, folder, tmp_path):
    for mmap in (False, True):
        loaded = hr.load_index(folder, mmap=mmap)
        loaded.save(folder)
        loaded.save(tmp_path / "copies" / str(mmap))
        assert contents(folder) == contents(tmp_path / "copies" / str(mmap))
        assert file_of(folder, "trie").read_bytes() == TRIE
        assert same_index(hr.load_index(folder), index)


@pytest.mark.parametrize("mmap", [False, True])
def test_loaded_index_outlives_its_files(index, folder, mmap):
    if os.name == "nt":
        pytest.skip("Windows does not remove files that are mapped")
    loaded = hr.load_index(folder, mmap=mmap)
    hr.build_index(OTHER).save(folder)
    shutil.rmtree(folder)
    assert same_index(loaded, index)


def overwrite(path):
    """Write other bytes into a file in place, then cut it short."""
    with open(path, "r+b") as file:
        file.write(b"x" * 100)
        file.truncate(10)


def test_a_whole_load_does_not_depend_on_its_files(index, folder):
    loaded = hr.load_index(folder)
    for part in ("trie", "items"):
        overwrite(file_of(folder, part))
    assert same_index(loaded, index)


def test_items_are_read_once_and_shared_by_copies(folder):
    loaded = hr.load_index(folder)
    table = loaded.items_table
    assert dataclasses.replace(loaded).items_table is table


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
@pytest.mark.parametrize("name", ["manifest.json", "manifest-new", "trie-new", ".lock", f"trie-{'0' * 16}.safetensors"])
@pytest.mark.parametrize("linked", [False, True])
def test_save_and_load_do_not_wait_for_a_fifo(index, tmp_path, name, linked):
    folder = tmp_path / "x"
    folder.mkdir()
    os.mkfifo(tmp_path / "fifo")
    if linked:
        (folder / name).symlink_to(tmp_path / "fifo")
    else:
        os.mkfifo(folder / name)
    with pytest.raises(hr.IndexFileError, match=f"holds '{name}', which is not part of an index"):
        index.save(folder)
    assert "manifest.json" in load_error(folder)
    with pytest.raises(hr.IndexFileError, match="is a file"):
        index.save(tmp_path / "fifo")
    load_error(tmp_path / "fifo")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
@pytest.mark.parametrize("part", ["trie", "items"])
def test_load_does_not_wait_for_a_fifo_in_place_of_a_data_file(folder, part):
    path = file_of(folder, part)
    path.unlink()
    os.mkfifo(path)
    assert "has 0 bytes" in load_error(folder)


def test_verify_has_three_values(folder):
    for value in (True, False, "all", 3):
        with pytest.raises(hr.ArgumentError, match=r"verify must be one of full, structure, none, None; got"):
            hr.load_index(folder, verify=value)  # pyright: ignore[reportArgumentType]


def test_a_path_that_is_too_long(index, tmp_path):
    for path in (tmp_path / ("x" * 300), tmp_path / "/".join(["x" * 200] * 30)):
        assert "cannot be read: File name too long" in load_error(path)
        with pytest.raises(hr.IndexFileError, match=r"cannot be saved to .*: File name too long"):
            index.save(path)


def test_arrays_are_read_only():
    index = hr.build_index(hr.Catalog([[0, 1], [0, 2], [0, 2]]))
    for array in [*index.levels[0].arrays.values(), *index.levels[1].arrays.values(), *leaf_arrays(index).values()]:
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 9


def test_save_replaces_an_index_and_removes_stale_files(folder):
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
def test_save_replaces_a_damaged_index(index, folder, damage):
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
def test_save_rejects_a_folder_with_other_files(index, folder, name):
    for target in (folder, folder.parent / "fresh"):
        target.mkdir(exist_ok=True)
        (target / name).write_bytes(b"mine")
        before = contents(target)
        with pytest.raises(hr.IndexFileError, match=f"holds '{name}'.*another path"):
            index.save(target)
        assert contents(target) == before


def test_save_rejects_a_folder_with_another_manifest(index, tmp_path):
    (tmp_path / "manifest.json").write_text('{"name": "a web page"}')
    with pytest.raises(hr.IndexFileError, match=r"holds 'manifest.json'.*another path"):
        index.save(tmp_path)
    assert contents(tmp_path) == {"manifest.json": b'{"name": "a web page"}'}


def test_save_rejects_the_path_of_a_file(index, tmp_path):
    (tmp_path / "index").write_bytes(b"mine")
    with pytest.raises(hr.IndexFileError, match=r"is a file.*another path"):
        index.save(tmp_path / "index")
    with pytest.raises(hr.IndexFileError, match="cannot be saved"):
        index.save(tmp_path / "index" / "below")
    assert (tmp_path / "index").read_bytes() == b"mine"


def test_save_creates_parent_folders(index, tmp_path):
    index.save(tmp_path / "a" / "b" / "c")
    assert same_index(hr.load_index(tmp_path / "a" / "b" / "c"), index)


def test_failed_save_keeps_the_old_index(folder):
    before = contents(folder)
    table = pa.table({"item_id": ["a", "b"], "nothing": [{}, {}]})
    unsavable = dataclasses.replace(hr.build_index(hr.Catalog([[1], [2]])), _load_items=lambda: table)
    with pytest.raises(hr.IndexFileError, match=r"cannot be written as Arrow: column 'nothing' has the type struct<>"):
        unsavable.save(folder)
    assert contents(folder) == before


def test_paths_are_interpreted_as_by_python(tmp_path, monkeypatch):
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
            index.save(path)  # pyright: ignore
        with pytest.raises(hr.ArgumentError, match="path"):
            hr.load_index(path)  # pyright: ignore


@pytest.mark.parametrize(
    ("name", "content"), [(".lock", "not ours"), ("manifest.json", '{"dependencies": {"hedgerow": "^1.0"}}')]
)
def test_save_rejects_other_files_with_names_of_an_index(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    (tmp_path / "trie-new").write_text("left by a crash")
    with pytest.raises(hr.IndexFileError, match="is not part of an index"):
        hr.build_index(hr.Catalog([[0, 1]])).save(tmp_path)
    assert (tmp_path / name).read_text() == content


def test_save_does_not_follow_symbolic_links(tmp_path):
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
