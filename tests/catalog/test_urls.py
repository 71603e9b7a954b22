"""Files of catalogs as URLs: every source that is a path can be one."""

import gzip
import json
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catalog_cases import SIDS, same, table_of
from remote import new_url, s3_server, write

import hedgerow as hr
from hedgerow._urls import local_path, remote_path, url_of
from hedgerow.catalog.readers import parquet_files
from hedgerow.catalog.sources import kind_of

pytest.importorskip("fsspec")


@pytest.fixture(scope="module")
def s3():
    with s3_server():
        yield


@pytest.fixture(params=["file", "memory", "s3"])
def url(request, tmp_path):
    if request.param == "s3":
        request.getfixturevalue("s3")
    return new_url(request.param, tmp_path)


CSV = "item_id,sid\n" + "".join(f"{row},{'-'.join(map(str, sid))}\n" for row, sid in enumerate(SIDS))
LINES = "".join(json.dumps({"item_id": row, "sid": sid}) + "\n" for row, sid in enumerate(SIDS))


def parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=2)
    return sink.getvalue().to_pybytes()


def test_files_of_every_kind(url):
    expected = hr.Catalog(SIDS, item_ids=[0, 1, 2])
    contents = {
        "items.parquet": parquet(pa.table({"item_id": [0, 1, 2], "sid": SIDS})),
        "items.csv": CSV.encode(),
        "items.csv.gz": gzip.compress(CSV.encode()),
        "items.jsonl": LINES.encode(),
        "items.json": json.dumps(dict(enumerate(SIDS))).encode(),
    }
    for name, content in contents.items():
        write(remote_path(f"{url}/{name}"), content)
        kind = kind_of(f"{url}/{name}")
        make = getattr(hr.Catalog, f"from_{kind}")
        # Of s3://bucket, Path makes s3:/bucket.
        for source in (f"{url}/{name}", Path(f"{url}/{name}"), [f"{url}/{name}"]):
            catalog = make(source)
            assert catalog.sids.tolist() == expected.sids.tolist()
            ids = catalog.item_ids.to_pylist()
            assert ids == (["0", "1", "2"] if name == "items.json" else [0, 1, 2])


def test_folders_and_patterns(url, tmp_path):
    """The same files, here and at a URL, give the same catalogs."""
    local = tmp_path / "items"
    for year, rows in ((2019, slice(0, 1)), (2020, slice(1, 3))):
        for name, content in (("part-0.parquet", parquet(table_of()[rows])), ("_log.parquet", b"no"), ("read.me", b"")):
            (local / f"year={year}").mkdir(parents=True, exist_ok=True)
            (local / f"year={year}" / name).write_bytes(content)
            write(remote_path(f"{url}/items/year={year}/{name}"), content)
    options = {"item_id": "id", "attributes": ["year"]}
    for source in ("", "/year=*", "/*/part-?.parquet", "/**/part-[01].parquet", "/year=2020"):
        here = hr.Catalog.from_parquet(f"{local}{source}", item_id="id")
        there = hr.Catalog.from_parquet(f"{url}/items{source}", item_id="id")
        assert same(here, there)
        assert len(here) == (2 if source.endswith("2020") else 3)
    names = [f"/items/year={year}/part-0.parquet" for year in (2019, 2020)]
    parts = [hr.Catalog.from_parquet([root + name for name in names], **options) for root in (str(tmp_path), url)]
    assert same(*parts)
    files = parquet_files(f"{url}/items")
    assert files.num_rows == 3
    assert sum(len(table) for _, table in files.batches(1)) == 3


def test_errors_name_the_url(url):
    for source, error in (
        ("/nothing.parquet", "does not exist"),
        ("/*.parquet", "matches no files"),
        ("/broken.parquet", "cannot be read as Parquet"),
    ):
        write(remote_path(f"{url}/broken.parquet"), b"PAR1")
        if source.startswith("/*"):
            remote_path(url).fs.rm_file(remote_path(f"{url}/broken.parquet").path)
        with pytest.raises(hr.CatalogError, match=error) as raised:
            hr.Catalog.from_parquet(url + source)
        assert source in str(raised.value)
    write(remote_path(f"{url}/items.csv"), b"item_id,sid\n1,1-x\n")
    with pytest.raises(hr.CatalogError, match=r"/items\.csv: column .sid."):
        hr.Catalog.from_csv(f"{url}/items.csv")


def test_other_protocols(monkeypatch):
    with pytest.raises(hr.ArgumentError, match="Protocol not known: nothing"):
        hr.Catalog.from_parquet("nothing://items.parquet")
    monkeypatch.setitem(__import__("sys").modules, "fsspec.core", None)
    with pytest.raises(hr.MissingDependencyError, match=r"reading s3://shop/items\.csv needs .*hedgerow\[remote\]"):
        hr.Catalog.from_csv("s3://shop/items.csv")


def test_build_on_disk(url, tmp_path):
    from hedgerow.index.build_on_disk import build_to_disk

    sids = np.stack(np.unravel_index(np.arange(4096), (16, 16, 16)), 1)
    write(remote_path(f"{url}/items/0.parquet"), parquet(pa.table({"sid": sids.tolist(), "item_id": np.arange(4096)})))
    build_to_disk(f"{url}/items", tmp_path / "items.hedgerow", memory=1 << 22)
    assert hr.load_index(tmp_path / "items.hedgerow").sids().tolist() == sids.tolist()


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("items.csv", None),
        ("/items/a:b.csv", None),
        ("C:/items", None),
        ("s3://a/b", "s3://a/b"),
        ("s3:/a/b", "s3://a/b"),
        (Path("s3://a/b"), "s3://a/b"),
        (Path("file:///a/b"), "file:///a/b"),
        ("simplecache::s3://a/b", "simplecache::s3://a/b"),
        (7, None),
    ],
)
def test_url_of(given, url):
    assert url_of(given) == url


@pytest.mark.parametrize("text", ["file:///{}", "file://localhost/{}", "file:/{}"])
def test_file_urls_are_paths(text, tmp_path):
    path = tmp_path / "a b?.csv"
    assert local_path(text.format(quote(str(path))[1:])) == path
    path.write_text(CSV)
    assert len(hr.Catalog.from_csv(text.format(quote(str(path))[1:]))) == 3
