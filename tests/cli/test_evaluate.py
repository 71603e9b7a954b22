"""`hedgerow evaluate`."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

for package in ("torch", "transformers", "implicit", "sklearn", "matplotlib"):
    pytest.importorskip(package)


@pytest.fixture(scope="module")
def clicks(tmp_path_factory):
    random = np.random.default_rng(0)
    items = np.concatenate([random.choice(140, 4, replace=False) for _ in range(30)])
    columns = {"user": np.repeat(np.arange(30), 4), "item_id": [f"t{item}" for item in items]}
    path = tmp_path_factory.mktemp("clicks") / "clicks.parquet"
    pq.write_table(pa.table(columns | {"timestamp": np.tile(range(4), 30)}), path)
    return path


def test_a_model_beside_baselines_and_blends(call, shop, clicks, tmp_path):
    model, index = shop[0] / "model", shop[0] / "things.hedgerow"
    options = [
        "--text",
        "title",
        "--blend",
        "model,item-knn",
        "--blend",
        "item-knn=1,text-knn=3",
        "--verify",
        "text-knn",
    ]
    outputs = ["--csv", tmp_path / "out.csv", "--plot", tmp_path / "out.png"]
    code, out, err = call("evaluate", model, index, clicks, *options, *outputs, "--users", 8, on_shop=False)
    assert (code, err) == (0, "")
    for name in ("model", "popularity", "item-knn", "text-knn", "model + item-knn", "model, drafts of text-knn"):
        assert name in out
    assert "item-knn + text-knn: weights item-knn 1, text-knn 3" in out
    assert "R@10" in out
    assert "95 %" in out
    with (tmp_path / "out.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {line["users"] for line in lines} == {"8"}
    assert (tmp_path / "out.png").stat().st_size > 0


def test_json_of_baselines_by_time(call, shop, clicks):
    index = shop[0] / "things.hedgerow"
    code, out, _ = call("evaluate", "none", index, clicks, "--split", "2,3", "-k", "3", "--json", on_shop=False)
    assert code == 0
    found = json.loads(out)
    assert found["settings"]["split"]["method"] == "time"
    assert {row["metric"] for row in found["rows"]} == {"Recall@3", "NDCG@10", "MRR@3", "coverage@10", "novelty@10"}


def test_later_interactions(call, shop, clicks, tmp_path):
    index, later = shop[0] / "things.hedgerow", tmp_path / "later.csv"
    later.write_text("user,item_id,timestamp\n3,t141,9\n5,t142,9\n99,t1,9\n")
    words = ("evaluate", "none", index, clicks, "--later", later)
    code, out, err = call(*words, "--json", on_shop=False)
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert {row["questions"] for row in found["rows"]} == {2}
    assert found["settings"]["later"] == "given"
    code, _, err = call(*words, "--split", "2,3", on_shop=False)
    assert code == 2
    assert "--later has the questions" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--blend", "model,item-knn"], "there is no method 'model' to blend"),
        (["--text", "other"], "there is no attribute 'other'"),
        (["--csv", "none/out.csv"], "there is no folder none"),
        (["--plot", "out.txt"], "must end in .png"),
        (["-k", "99"], "at most beam_width, 50"),
    ],
)
def test_refusals(call, shop, clicks, options, message):
    code, out, err = call("evaluate", "none", shop[0] / "things.hedgerow", clicks, *options, on_shop=False)
    assert (code, out) == (1, "")
    assert message in err


def test_wrong_weights(call, shop, clicks):
    options = ["--blend", "item-knn=1,popularity"]
    code, _, err = call("evaluate", "none", shop[0] / "things.hedgerow", clicks, *options, on_shop=False)
    assert code == 2
    assert "a weight for each name" in err
