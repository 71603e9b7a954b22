"""Commands read catalogs, embeddings, histories and requests from URLs. Indexes are folders of this machine."""

import io
import json

import numpy as np
import pytest
from commands import assert_refused, lines_of
from livesupport import items_of
from remote import new_url, write

import hedgerow as hr
from hedgerow._urls import remote_path

pytest.importorskip("fsspec")


@pytest.fixture
def put(tmp_path):
    """Write a file to a folder in memory; returns its URL."""
    root = new_url("memory", tmp_path)

    def put(name: str, content: str | bytes) -> str:
        write(remote_path(f"{root}/{name}"), content.encode() if isinstance(content, str) else content)
        return f"{root}/{name}"

    return put


def test_catalogs(call, put, tmp_path):
    first = put("items/0.csv", "item_id,sid\na,0-1\nb,2-3\n")
    put("items/1.csv", "item_id,sid\nc,2-4\n")
    index = tmp_path / "items.hedgerow"
    for source, count in ((first, 2), (first.replace("0.csv", "*.csv"), 3), (first.rpartition("/")[0], 3)):
        code, stdout, _ = call(
            *("build", source, "-o", index, "--codebook-sizes", 6, "--overwrite", "--json"), on_shop=False
        )
        assert (code, json.loads(stdout)["items"]) == (0, count)
    live = tmp_path / "items.live"
    assert call("live", "init", live, f"file://{index}", on_shop=False)[0] == 0
    more = put("more.jsonl", '{"item_id": "d", "sid": [5, 5]}\n')
    assert call("live", "add", live, more, on_shop=False)[0] == 0
    assert call("live", "remove", live, "--input", put("gone.txt", "a\nb\n"), on_shop=False)[0] == 0
    assert call("live", "status", f"file://{live}", on_shop=False)[0] == 0
    assert items_of(hr.LiveIndex.open(live).version) == {"c": [2, 4], "d": [5, 5]}


def test_embeddings(call, put, tmp_path):
    embeddings = io.BytesIO()
    np.save(embeddings, np.random.default_rng(0).normal(size=(64, 4)))
    source = put("embeddings.npy", embeddings.getvalue())
    output = tmp_path / "items.parquet"
    words = ("semantic-ids", source, "-o", output, "--levels", 2, "--codebook-sizes", 4)
    code, _, stderr = call(*words, on_shop=False)
    assert code == 0, stderr
    assert len(hr.Catalog.from_parquet(output)) == 64


def test_requests(call, put):
    source = put("requests.jsonl", '{"prompt": [5, 6], "k": 2}\n{"prompt": [7], "k": 3}\n')
    code, stdout, stderr = call("retrieve", "--input", source, "--json")
    assert code == 0, stderr
    assert [len(answer["items"]) for answer in lines_of(stdout)] == [2, 3]
    assert_refused(call("retrieve", "--input", f"{source}.gz"), "requests.jsonl.gz")


def test_histories(put):
    training = pytest.importorskip("hedgerow.training")
    index = hr.build_index(hr.Catalog([[0, 1], [2, 0]], item_ids=["a", "b"]))
    source = put("clicks.csv", "user,item_id,timestamp\nu1,b,2\nu1,a,1\n")
    assert [items.tolist() for items in training.read_histories(source, index)] == [[0, 1]]


def test_indexes(call, put):
    source = put("items.csv", "item_id,sid\na,0-1\n")
    for words in (
        ("inspect", "s3://bucket/items.hedgerow"),
        ("live", "status", "s3://bucket/items.hedgerow"),
        ("build", source, "-o", "s3://bucket/items.hedgerow"),
    ):
        assert_refused(call(*words, on_shop=False), "s3://bucket/items.hedgerow is not on this machine")
