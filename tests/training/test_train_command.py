"""`hedgerow train`, and histories in `hedgerow retrieve` and `explain`."""

import json
import sys

import pyarrow.parquet as pq
import pytest
from training.shop import clicks, shop

from hedgerow.cli.main import main

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

TRAIN = ("--size", "tiny", "--epochs", "1", "--device", "cpu", "--validation-users", "20")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with an index and a file of clicks."""
    folder = tmp_path_factory.mktemp("shop")
    shop().save(folder / "shop.hedgerow")
    pq.write_table(clicks().rename_columns(["who", "what", "when"]), folder / "clicks.parquet")
    return folder


@pytest.fixture
def call(folder, monkeypatch, capsys):
    """Run a command in the folder: exit code, stdout, stderr."""

    def run(*words):
        monkeypatch.chdir(folder)
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "argv", ["hedgerow", *map(str, words)])
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def model(call, folder):
    """The model, trained once."""
    columns = ("--user", "who", "--item", "what", "--timestamp", "when")
    if not (folder / "model").exists():
        code, out, err = call("train", "shop.hedgerow", "clicks.parquet", "-o", "model", *columns, *TRAIN)
        assert code == 0, err
        assert "Recall@10" in out
        assert "popular" in out
        assert "150 users" in err
        assert "users with one item only train" in err
    return "model"


def test_train_refuses(call, model):
    code, _, err = call("train", "shop.hedgerow", "clicks.parquet", "-o", "other", *TRAIN)
    assert code == 1
    assert "clicks.parquet: there is no column 'user'; the columns are who, what, when" in err
    columns = ("--user", "who", "--item", "what", "--timestamp", "when")
    code, _, err = call("train", "shop.hedgerow", "clicks.parquet", "-o", model, *columns, *TRAIN)
    assert code == 1
    assert "model exists already" in err
    code, _, err = call("train", "shop.hedgerow", "clicks.parquet", "-o", "other", *columns, *TRAIN, "--split", "3")
    assert code == 2
    assert "expected two times" in err


def test_train_by_time_as_json(call, folder):
    columns = ("--user", "who", "--item", "what", "--timestamp", "when")
    words = ("-o", "timed", *columns, *TRAIN, "--split", "4,6", "--json")
    code, out, err = call("train", "shop.hedgerow", "clicks.parquet", *words)
    assert code == 0, err
    report = json.loads(out)
    assert report["folder"] == "timed"
    assert report["best"]["recall@10"] >= 0
    facts = json.loads((folder / "timed" / "training.json").read_text())
    assert facts["split"] == {"method": "time", "validation": "4", "test": "6"}


def test_retrieve_for_a_history(call, model):
    words = ("retrieve", model, "shop.hedgerow", "-k", "60", "--beam-width", "60")
    code, out, err = call(*words, "--history", "i3,i14", "--json")
    assert code == 0, err
    answer = json.loads(out)
    ids = [item["item_id"] for item in answer["items"]]
    assert answer["history"] == ["i3", "i14"]
    assert len(ids) == 58
    assert not {"i3", "i14"} & set(ids)
    _, out, _ = call(*words, "--history", "i3,i14", "--json", "--repeat")
    assert len(json.loads(out)["items"]) == 60
    _, out, _ = call("retrieve", model, "shop.hedgerow", "-k", "2", "--history", "i3,i14")
    assert "after Item 3, Item 14" in out


def test_lines_with_histories(call, model, folder):
    lines = [
        {"history": ["i3", "i14"], "k": 3},
        {"history": ["none"]},
        {"history": ["i3"], "prompt": "x"},
        {"history": 3},
    ]
    (folder / "lines.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, out, _ = call("retrieve", "--model", model, "--index", "shop.hedgerow", "--input", "lines.jsonl", "--json")
    assert code == 1
    first, *errors = map(json.loads, out.splitlines())
    assert len(first["items"]) == 3
    assert "items of the history are not in the index" in errors[0]["error"]
    assert 'has both "prompt" and "history"' in errors[1]["error"]
    assert '"history" must be a list' in errors[2]["error"]


def test_explain_for_a_history(call, model):
    code, out, err = call("explain", model, "shop.hedgerow", "--history", "i3,i14", "--item", "title=Item 25")
    assert code == 0, err
    assert "Item 25" in out
    code, _, err = call("explain", model, "shop.hedgerow", "--item", "i25")
    assert code == 2
    assert "pass a prompt or a history" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("retrieve", "a western"), "pass the prompt with -p"),
        (("retrieve", "model", "shop.hedgerow"), "pass --prompt, --history or --input"),
        (("retrieve", "model", "shop.hedgerow", "--history", "i1", "-p", "x"), "only one of them"),
        (("retrieve", "model", "shop.hedgerow", "--model", "model", "-p", "x"), "as words or as options"),
    ],
)
def test_wrong_words(call, model, words, message):
    assert model
    code, _, err = call(*words)
    assert code == 2
    assert message in err
