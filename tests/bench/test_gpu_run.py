"""The run of the GPU scripts: results are written as they come, so that a run that is cut off leaves them."""

import argparse
import csv
import importlib
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")


@pytest.fixture
def gpu_run(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    yield importlib.import_module("gpu_run")
    del sys.modules["gpu_run"]


@pytest.fixture
def run(gpu_run, tmp_path):
    options = argparse.Namespace(dry_run=True, out=tmp_path, seconds=60.0, commit="abc123")
    return gpu_run.run_of(options, "steps")


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_are_written_as_they_come(run, tmp_path):
    run.costs = {"launch_us": 1.5}
    for number in range(3):
        # The second row has a column of its own.
        run.add({"method": f"method {number}", "median_us": 1.23456789} | ({"added_us": 2} if number == 1 else {}))
        rows = read(tmp_path / "steps.csv")
        assert [row["method"] for row in rows] == [f"method {n}" for n in range(number + 1)]
        assert rows[-1]["median_us"] == "1.2346"
        assert (rows[-1]["launch_us"], rows[-1]["commit"]) == ("1.5", "abc123")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["steps-checks.csv", "steps.csv"]


def test_a_failed_check_is_written_and_the_run_goes_on(run, tmp_path, capsys):
    def fails():
        raise ValueError("wrong\nscores")

    run.check("first", fails)
    run.check("second", lambda: None)
    assert [(row["check"], row["holds"], row["why"]) for row in read(tmp_path / "steps-checks.csv")] == [
        ("first", "False", "ValueError: wrong scores"),
        ("second", "True", ""),
    ]
    assert run.finish(tmp_path) == 1
    assert "1 checks passed, 1 failed" in capsys.readouterr().out


def test_nothing_starts_without_time(run, capsys):
    run.attempt("runs", lambda: run.add({"method": "in time"}))
    run.attempt("fails", lambda: 1 / 0)
    run.deadline = time.monotonic() - 1
    run.attempt("late", lambda: run.add({"method": "late"}))
    assert [row["method"] for row in run.rows] == ["in time"]
    printed = capsys.readouterr().out
    assert "fails is skipped: ZeroDivisionError" in printed
    assert "late is skipped: no time is left" in printed
    assert run.finish(Path()) == 0
