"""The films and the synthetic histories of the tutorial."""

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

import hedgerow as hr
from hedgerow.demo.export import export_shop
from hedgerow.demo.films import DATA

EXAMPLE = Path(__file__).parents[2] / "examples" / "films"


def test_files(tmp_path):
    counts = export_shop(tmp_path / "shop")
    assert {path.name: rows for path, rows in counts.items()} == {
        "films.csv": 571,
        "new.csv": 29,
        "histories.csv": 32565,
    }
    films, new, histories = (csv.read_csv(path) for path in counts)
    assert set(new["year"].to_pylist()) == {2014}
    assert max(films["year"].to_pylist()) < 2014
    assert set(histories["item_id"].to_pylist()) <= set(films["item_id"].to_pylist())
    lengths = np.unique(histories["user"], return_counts=True)[1]
    assert len(lengths) == 3000
    assert (lengths.min(), lengths.max()) == (2, 60)
    with pytest.raises(hr.ArgumentError, match="exists already"):
        export_shop(tmp_path / "shop")
    assert export_shop(tmp_path / "shop", overwrite=True) == counts
    assert len(list((tmp_path / "shop").iterdir())) == 3


def test_the_script_makes_the_histories(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE))
    for name in ("paths", "histories"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import histories  # pyright: ignore[reportMissingImports]

    assert (DATA / "histories.parquet").stat().st_size < 400_000
    made = histories.histories(histories.chosen_films(pq.read_table(DATA / "films.parquet")))
    assert made.equals(pq.read_table(DATA / "histories.parquet"))
