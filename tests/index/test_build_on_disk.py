"""build_to_disk gives the same trie as build_index, within a memory limit."""

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from naive import same_trie

import hedgerow as hr
from hedgerow.index import batched
from hedgerow.index.build_on_disk import build_to_disk
from hedgerow.index.verify import verify_trie


def write(path: Path, sids: np.ndarray, **columns) -> Path:
    lists = pa.FixedSizeListArray.from_arrays(sids.reshape(-1), sids.shape[1])
    pq.write_table(pa.table({"sid": lists, **columns}), path, row_group_size=1000)
    return path


def catalogs():
    rng = np.random.default_rng(0)
    yield "random", rng.integers(0, 16, (9000, 5))
    yield "collisions", rng.integers(0, 9, (9000, 3))
    yield "one level", rng.integers(0, 5000, (9000, 1))
    yield "nearly unary", rng.integers(0, 2048, (9000, 8))
    yield "one item", np.asarray([[3, 1, 4]])
    yield "many copies", np.tile([[1, 2, 3], [1, 2, 4]], (2000, 1))
    deep = rng.integers(0, 2, (4000, 40))
    deep[:, :8] = 1
    yield "deep", deep


@pytest.mark.parametrize("layout", ["plain", "compact"])
@pytest.mark.parametrize(("name", "sids"), list(catalogs()), ids=[name for name, _ in catalogs()])
def test_equals_the_build_in_memory(tmp_path, name, sids, layout):  # noqa: ARG001
    rng = np.random.default_rng(1)
    names = [uuid.UUID(bytes=rng.bytes(16)).hex for _ in sids]
    source = write(tmp_path / "items.parquet", sids, asin=names, price=rng.random(len(sids)))
    build_to_disk(source, tmp_path / "disk", memory=150_000, item_id="asin", layout=layout)
    expected = hr.build_index(hr.Catalog.from_parquet(source, item_id="asin"), layout=layout)
    expected.save(tmp_path / "memory")
    index = verify_trie(tmp_path / "disk")
    assert same_trie(index, expected)
    assert index.items_table.equals(expected.items_table)
    tries = [next((tmp_path / folder).glob("trie-*")) for folder in ("disk", "memory")]
    assert tries[0].name == tries[1].name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "items.parquet", "memory"]


def test_folders_of_files_equal_the_build_in_memory(tmp_path):
    rng = np.random.default_rng(5)
    for year in (2020, 2021, 2022):
        (tmp_path / "items" / f"year={year}").mkdir(parents=True)
        columns = {"item_id": [f"{year}-{row}" for row in range(3000)], "price": np.arange(3000)}
        columns = columns if year > 2020 else columns | {"name": columns["item_id"]}
        write(tmp_path / "items" / f"year={year}" / "part.parquet", rng.integers(0, 50, (3000, 3)), **columns)
    (tmp_path / "items" / "_SUCCESS").touch()
    for name, source in {"folder": tmp_path / "items", "glob": tmp_path / "items" / "*" / "*.parquet"}.items():
        build_to_disk(source, tmp_path / name, memory=150_000)
        index, expected = verify_trie(tmp_path / name), hr.build_index(hr.Catalog.from_parquet(source))
        assert same_trie(index, expected)
        assert index.items_table.equals(expected.items_table)
        assert set(index.attributes["year"].to_pylist()) == {2020, 2021, 2022}


def test_an_error_names_the_file_of_a_folder(tmp_path):
    (tmp_path / "items").mkdir()
    write(tmp_path / "items" / "a.parquet", np.ones((3, 2), int))
    write(tmp_path / "items" / "b.parquet", -np.ones((3, 2), int))
    with pytest.raises(hr.CatalogError, match=r"b.parquet, in the batch that starts at row 3: row 0, level 0"):
        build_to_disk(tmp_path / "items", tmp_path / "x", memory=10**9)


def test_row_numbers_and_no_attributes(tmp_path):
    sids = np.random.default_rng(2).integers(0, 7, (5000, 4))
    source = write(tmp_path / "items.parquet", sids, price=np.arange(5000))
    build_to_disk(source, tmp_path / "x", memory=150_000, codebook_sizes=9, attributes=[])
    expected = hr.build_index(hr.Catalog(sids, codebook_sizes=9))
    index = hr.load_index(tmp_path / "x")
    assert same_trie(index, expected)
    assert index.item_ids.to_pylist() == expected.item_ids.to_pylist()
    assert index.attributes.column_names == []


@pytest.mark.parametrize("kind", [str, int])
def test_rejects_an_id_repeated_in_another_batch(tmp_path, kind):
    sids = np.random.default_rng(3).integers(0, 50, (70_000, 3))
    ids = [kind(number) for number in range(70_000)]
    ids[69_999] = ids[0]
    source = write(tmp_path / "items.parquet", sids, asin=ids)
    with pytest.raises(hr.CatalogError, match=r"item id '?0'? appears twice"):
        build_to_disk(source, tmp_path / "x", memory=1_000_000, item_id="asin")
    with pytest.raises(hr.IndexFileError):
        hr.load_index(tmp_path / "x")


def test_error_names_the_row_and_leaves_no_files(tmp_path):
    sids = np.random.default_rng(4).integers(0, 50, (70_000, 2))
    sids[69_999, 1] = -5
    source = write(tmp_path / "items.parquet", sids)
    with pytest.raises(hr.CatalogError, match=r"in the batch that starts at row 65,536: row 4463, level 1: code -5"):
        build_to_disk(source, tmp_path / "x", memory=1_000_000)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".hedgerow")] == []


def test_rejects_too_low_a_memory_limit(tmp_path):
    source = write(tmp_path / "items.parquet", np.random.default_rng(5).integers(0, 50, (5000, 2)))
    with pytest.raises(hr.CatalogError, match=r"need at least .* MB of memory"):
        build_to_disk(source, tmp_path / "x", memory=10)


def test_rejects_more_items_than_an_index_holds(tmp_path, monkeypatch):
    source = write(tmp_path / "items.parquet", np.random.default_rng(5).integers(0, 50, (5000, 2)))
    monkeypatch.setattr(batched, "MAX_ITEMS", 4999)
    with pytest.raises(hr.CatalogError, match=r"up to 4,999 items; these files have 5,000 rows"):
        build_to_disk(source, tmp_path / "x", memory=10**9)


def test_rejects_a_file_that_is_not_parquet(tmp_path):
    (tmp_path / "items.parquet").write_text("no")
    with pytest.raises(hr.CatalogError, match="cannot be read as Parquet"):
        build_to_disk(tmp_path / "items.parquet", tmp_path / "x", memory=10**9)


STOPPED = """
import os, signal, sys, hedgerow as hr
from hedgerow.index.build_on_disk import build_to_disk
def progress(what, done, total):
    if what == "build":
        print(os.listdir(sys.argv[2]), flush=True)
        if sys.argv[3] == "wait":
            sys.stdin.read()
        os.kill(os.getpid(), getattr(signal, sys.argv[3]))
build_to_disk(sys.argv[1], sys.argv[2] + "/x", memory=150_000, progress=progress)
"""


def start_build(source: Path, folder: Path, how: str) -> subprocess.Popen:
    command = [sys.executable, "-c", STOPPED, str(source), str(folder), how]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert ".hedgerow-build-" in process.stdout.readline()
    return process


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs signals of POSIX")
def test_a_stopped_build_leaves_no_files_after_the_next_one(tmp_path):
    source = write(tmp_path / "items.parquet", np.random.default_rng(6).integers(0, 50, (5000, 3)))
    folder = tmp_path / "out"
    folder.mkdir()
    with start_build(source, folder, "SIGTERM") as process:
        process.communicate()
    assert process.returncode == -signal.SIGTERM
    assert os.listdir(folder) == []
    with start_build(source, folder, "SIGKILL") as process:
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    (left,) = os.listdir(folder)
    assert left.startswith(".hedgerow-build-")
    with start_build(source, folder, "wait") as running:
        assert left not in os.listdir(folder)
        # The files of a build that is running stay.
        build_to_disk(source, folder / "y", memory=150_000)
        (in_use,) = set(os.listdir(folder)) - {"y"}
        running.kill()
    build_to_disk(source, folder / "y", memory=150_000)
    assert in_use.startswith(".hedgerow-build-")
    assert os.listdir(folder) == ["y"]


def test_a_handler_of_sigterm_is_kept(tmp_path):
    source = write(tmp_path / "items.parquet", np.random.default_rng(7).integers(0, 50, (500, 3)))
    seen = []
    handlers = []

    def handler(number, frame):  # noqa: ARG001
        seen.append(number)

    before = signal.signal(signal.SIGTERM, handler)
    try:
        progress = lambda *_: handlers.append(signal.getsignal(signal.SIGTERM))  # noqa: E731
        build_to_disk(source, tmp_path / "x", memory=150_000, progress=progress)
        assert set(handlers) == {handler}
    finally:
        signal.signal(signal.SIGTERM, before)
    build_to_disk(source, tmp_path / "x", memory=150_000)
    assert signal.getsignal(signal.SIGTERM) == before


def test_rejects_damaged_pages_and_an_output_that_cannot_be_written(tmp_path):
    source = write(tmp_path / "items.parquet", np.random.default_rng(8).integers(0, 50, (5000, 3)))
    (tmp_path / "file").touch()
    with pytest.raises(hr.IndexFileError, match=r"cannot be saved to .*: (Not a directory|File exists)"):
        build_to_disk(source, tmp_path / "file" / "x", memory=10**9)
    data = bytearray(source.read_bytes())
    data[4:2000] = b"\xff" * 1996
    source.write_bytes(data)
    with pytest.raises(hr.CatalogError, match="cannot be read as Parquet"):
        build_to_disk(source, tmp_path / "x", memory=10**9)
    assert sorted(os.listdir(tmp_path)) == ["file", "items.parquet"]
