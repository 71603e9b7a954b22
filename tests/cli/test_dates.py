"""--dates: the order of day, month and year; and a line where a column looks like dates but is text."""

import datetime as dt
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import hedgerow as hr
from hedgerow.cli.main import app

DAYS = [dt.date(2020, 12, 31), dt.date(2021, 2, 1)]
ROWS = "item_id,sid,released\n0,0-1,31/12/2020\n1,1-1,1/2/2021\n"


def run(*words):
    done = CliRunner().invoke(app, list(map(str, words)), env={"COLUMNS": "300"})
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "items.csv").write_text(ROWS)
    lines = [{"item_id": row, "sid": [row, 1], "released": day} for row, day in ((0, "31/12/2020"), (1, "1/2/2021"))]
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


@pytest.mark.parametrize("source", ["items.csv", "items.jsonl"])
def test_build(source):
    printed = run("build", source, "-o", "text.hedgerow")
    assert printed.count("warning: column 'released' looks like dates, for example '31/12/2020'") == 1
    assert "--dates dmy" in printed
    assert "warning" not in run("build", source, "-o", "dates.hedgerow", "--dates", "dmy")
    assert hr.load_index("dates.hedgerow").attributes["released"].to_pylist() == DAYS
    assert "warning" not in run("build", source, "-o", "none.hedgerow", "--attributes", "")


def test_build_from_parquet_has_no_order(folder):
    pq.write_table(pa.table({"sid": [[0, 1]], "released": ["31/12/2020"]}), folder / "items.parquet")
    done = CliRunner().invoke(
        app, ["build", "items.parquet", "-o", "a.hedgerow", "--dates", "dmy"], env={"COLUMNS": "200"}
    )
    assert done.exit_code == 2
    assert "for CSV and JSON files" in done.output


def test_live(folder):
    run("build", "items.csv", "-o", "a.hedgerow", "--dates", "dmy")
    run("live", "init", "a.live", "a.hedgerow")
    (folder / "more.csv").write_text("item_id,sid,released\n2,0-0,3/4/2022\n")
    run("live", "add", "a.live", "more.csv", "--dates", "dmy")
    (folder / "changed.csv").write_text("item_id,released\n0,13/4/2022\n")
    run("live", "update-attributes", "a.live", "changed.csv", "--dates", "dmy")
    index = hr.LiveIndex.open("a.live").version.index
    found = dict(zip(index.item_ids.to_pylist(), index.attributes["released"].to_pylist(), strict=True))
    assert found == {0: dt.date(2022, 4, 13), 1: DAYS[1], 2: dt.date(2022, 4, 3)}
    (folder / "new.csv").write_text("item_id,seen\n0,13/4/2022\n1,1/2/2022\n2,1/2/2022\n")
    printed = run("live", "update-attributes", "a.live", "new.csv", "--new-attributes", "add")
    assert "column 'seen' looks like dates" in printed


def test_semantic_ids(folder):
    pytest.importorskip("faiss")
    vectors = np.random.default_rng(0).normal(size=(4, 3)).round(3).tolist()
    lines = [{"item_id": row, "embedding": vector, "seen": f"{row + 20}/1/2020"} for row, vector in enumerate(vectors)]
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, lines)))
    words = "semantic-ids", "items.jsonl", "--levels", "1", "--codebook-sizes", "2"
    assert "column 'seen' looks like dates" in run(*words, "-o", "text.parquet")
    assert "looks like" not in run(*words, "-o", "dates.parquet", "--dates", "dmy")
    assert pq.read_table("dates.parquet")["seen"].to_pylist()[0] == dt.date(2020, 1, 20)


def test_histories(folder):
    pytest.importorskip("torch")
    from hedgerow.training import read_histories

    run("build", "items.csv", "-o", "a.hedgerow", "--dates", "dmy")
    (folder / "clicks.csv").write_text("user,item_id,timestamp\n7,0,1/2/2021\n7,1,31/12/2020\n")
    index = hr.load_index("a.hedgerow")
    with pytest.raises(hr.ArgumentError, match=r"'1/2/2021'.*--dates"):
        read_histories("clicks.csv", index)
    histories = read_histories("clicks.csv", index, dates="dmy")
    assert index.item_ids.take(pa.array(histories[0])).to_pylist() == [1, 0]
    with pytest.raises(hr.ArgumentError, match="dates must be one of"):
        read_histories("clicks.csv", index, dates="us")  # pyright: ignore[reportArgumentType]


def refused(*words):
    done = CliRunner().invoke(app, list(map(str, words)), env={"COLUMNS": "300"})
    assert done.exit_code != 0, done.output
    return " ".join((done.output + str(done.exception)).split())


def test_sids_and_ids_are_no_dates(folder):
    (folder / "items.csv").write_text(
        "item_id,sid,released\n1/2/2020,1-2-2020,31/12/2020\n3/4/2021,0-1-2021,1/2/2021\n"
    )
    assert "warning" not in run("build", "items.csv", "-o", "a.hedgerow", "--dates", "dmy")
    index = hr.load_index("a.hedgerow")
    found = zip(index.item_ids.to_pylist(), index.attributes["released"].to_pylist(), strict=True)
    assert dict(found) == {"1/2/2020": DAYS[0], "3/4/2021": DAYS[1]}
    run("build", "items.csv", "-o", "b.hedgerow", "--dates", "dmy", "--as-text", "released")
    assert set(hr.load_index("b.hedgerow").attributes["released"].to_pylist()) == {"31/12/2020", "1/2/2021"}


def test_prices_as_text(folder):
    (folder / "items.csv").write_text('item_id,sid,price\n0,0-1,"114,70"\n1,1-1,"9,50"\n')
    printed = run("build", "items.csv", "-o", "a.hedgerow")
    assert "column 'price' looks like numbers, but '114,70' keeps it text: use a decimal point" in printed


def test_a_missing_sid_column_names_no_dates(folder):
    (folder / "items.csv").write_text("item_id,added\n0,31/12/2020\n1,1/2/2021\n")
    message = refused("build", "items.csv", "-o", "a.hedgerow")
    assert "hedgerow semantic-ids" in message
    assert "Columns that can hold SIDs" not in message


def test_histories_in_another_order_name_the_row(folder):
    pytest.importorskip("torch")
    from hedgerow.training import read_histories

    run("build", "items.csv", "-o", "a.hedgerow", "--dates", "dmy")
    index = hr.load_index("a.hedgerow")
    (folder / "clicks.csv").write_text("user,item_id,timestamp\n1/2/2020,0,1/2/2021\n1/2/2020,1,17/03/2026\n")
    with pytest.raises(
        hr.ArgumentError, match=r"Row 1: '17/03/2026' is not a date in the order mdy\. Pass dates='dmy'"
    ):
        read_histories("clicks.csv", index, dates="mdy")
    assert read_histories("clicks.csv", index, dates="dmy").users.to_pylist() == ["1/2/2020"]
    (folder / "clicks.csv").write_text("user,item_id,timestamp\n7,0,1/2/2021\n7,1,31/02/2024\n")
    with pytest.raises(hr.ArgumentError, match=r"Row 1: '31/02/2024' is not a date in the order dmy\. Correct"):
        read_histories("clicks.csv", index, dates="dmy")
    (folder / "clicks.csv").write_text("user,item_id,timestamp\n7,0,1/2/2021\n7,1,n/a\n")
    with pytest.raises(hr.ArgumentError, match=r"Row 1: 'n/a' is not a date in the order dmy\. Correct"):
        read_histories("clicks.csv", index, dates="dmy")
