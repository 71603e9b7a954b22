"""hedgerow.ray.build writes the files that one build writes."""

import os
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from saved import contents

import hedgerow as hr
import hedgerow.ray


def write_files(folder: Path, *, files: int, rows: int, levels: int = 3, codes: int = 30, **columns) -> None:
    """Parquet files with SIDs, text ids in random order, and attributes with nulls."""
    rng = np.random.default_rng(files)
    folder.mkdir()
    for number in range(files):
        sids = rng.integers(0, codes, (rows, levels))
        lists = pa.FixedSizeListArray.from_arrays(sids.reshape(-1), levels)
        values = rng.integers(0, 5, rows)
        tags = pa.array([None if value == 3 else [str(value)] * value for value in values.tolist()])
        ids = [uuid.UUID(bytes=rng.bytes(16)).hex for _ in range(rows)]
        table = pa.table({"item_id": ids, "sid": lists, "price": values, "tags": tags})
        for name, of_file in columns.items():
            table = table.set_column(table.column_names.index(name), name, of_file(number, table))
        pq.write_table(table, folder / f"part-{number:02}.parquet", row_group_size=100)


def built(source, folder: Path, **options) -> dict[str, bytes]:
    hr.build_index(hr.Catalog.from_parquet(source, **options)).save(folder)
    return contents(folder)


def test_forty_files_equal_one_build(tmp_path):
    write_files(tmp_path / "items", files=40, rows=250)
    done: dict[str, list[tuple[int, int]]] = {}
    index = hedgerow.ray.build(
        tmp_path / "items",
        tmp_path / "out" / "ray",
        memory=200_000,
        progress=lambda what, *numbers: done.setdefault(what, []).append(numbers),
    )
    assert contents(tmp_path / "out" / "ray") == built(tmp_path / "items", tmp_path / "one")
    assert len(index) == 10_000
    assert os.listdir(tmp_path / "out") == ["ray"]
    assert list(done) == ["read", "spill", "build", "sort", "join"]
    # Many parts, and progress to the end of each step.
    assert len(done["build"]) > 10
    assert all(numbers == sorted(numbers) and numbers[-1][0] == numbers[-1][1] for numbers in done.values())


@pytest.mark.parametrize("options", [{"item_id": None}, {"codebook_sizes": 40, "attributes": ["tags"]}])
def test_options_and_collisions(tmp_path, options):
    """Row numbers as ids, which count over all files; three items to a SID."""
    write_files(tmp_path / "items", files=5, rows=300, levels=2, codes=23)
    if "item_id" in options:
        for path in (tmp_path / "items").iterdir():
            pq.write_table(pq.read_table(path).drop_columns(["item_id"]), path)
    hedgerow.ray.build(f"{tmp_path}/items/*.parquet", tmp_path / "ray", workers=1, **options)
    assert contents(tmp_path / "ray") == built(tmp_path / "items", tmp_path / "one", **options)


def test_the_compact_layout(tmp_path):
    write_files(tmp_path / "items", files=5, rows=300)
    index = hedgerow.ray.build(tmp_path / "items", tmp_path / "ray", memory=50_000, layout="compact")
    hr.build_index(hr.Catalog.from_parquet(tmp_path / "items"), layout="compact").save(tmp_path / "one")
    assert index.layout == "compact"
    assert contents(tmp_path / "ray") == contents(tmp_path / "one")


def test_files_of_different_columns_and_without_rows(tmp_path):
    write_files(tmp_path / "items", files=4, rows=200)
    for number, path in enumerate(sorted((tmp_path / "items").iterdir())):
        table = pq.read_table(path)
        table = table.append_column("more", pa.array(range(len(table)))) if number == 2 else table
        pq.write_table(table.slice(0, 0) if number in (0, 3) else table, path)
    hedgerow.ray.build([tmp_path / "items"], tmp_path / "ray")
    assert contents(tmp_path / "ray") == built(tmp_path / "items", tmp_path / "one")


def test_one_item(tmp_path):
    write_files(tmp_path / "items", files=1, rows=1)
    hedgerow.ray.build(tmp_path / "items", tmp_path / "ray")
    assert contents(tmp_path / "ray") == built(tmp_path / "items", tmp_path / "one")


def refused(kind: type[Exception], source, output: Path, **options) -> str:
    with pytest.raises(kind) as caught:
        hedgerow.ray.build(source, output, **options)
    return str(caught.value)


def test_errors_name_the_file_and_leave_nothing(tmp_path):
    def negative(number, table):
        sids = np.full((len(table), 3), -1 if number == 7 else 1)
        return pa.FixedSizeListArray.from_arrays(sids.reshape(-1), 3)

    write_files(tmp_path / "items", files=9, rows=100, sid=negative)
    message = refused(hr.CatalogError, tmp_path / "items", tmp_path / "out" / "ray")
    assert "part-07.parquet, in the batch that starts at row 700: row 0, level 0: code -1" in message
    assert os.listdir(tmp_path / "out") == []


def test_an_id_in_two_files(tmp_path):
    write_files(tmp_path / "items", files=3, rows=100, item_id=lambda _, table: pa.array(range(len(table))))
    message = refused(hr.CatalogError, tmp_path / "items", tmp_path / "out" / "ray", memory=20_000)
    assert "appears twice" in message
    assert os.listdir(tmp_path / "out") == []


def test_sids_of_different_lengths(tmp_path):
    write_files(tmp_path / "items", files=2, rows=100)
    write_files(tmp_path / "more", files=1, rows=100, levels=4)
    message = refused(hr.CatalogError, [tmp_path / "items", tmp_path / "more"], tmp_path / "ray")
    assert "have 3 to 4 codes" in message


def test_what_is_refused_before_the_build(tmp_path):
    write_files(tmp_path / "items", files=1, rows=600)
    (tmp_path / "file").touch()
    assert "is a file" in refused(hr.IndexFileError, tmp_path / "items", tmp_path / "file")
    assert "workers must be" in refused(hr.ArgumentError, tmp_path / "items", tmp_path / "ray", workers=0)
    assert "need at least" in refused(hr.CatalogError, tmp_path / "items", tmp_path / "ray", memory=1)
    with open(tmp_path / "items" / "part-00.parquet", "rb") as file:
        assert "an open file" in refused(hr.CatalogError, file, tmp_path / "ray")
    assert "does not exist" in refused(hr.CatalogError, tmp_path / "none", tmp_path / "ray")
