"""`hedgerow bench` and `hedgerow plan`, as a user runs them, at tiny sizes. No time is asserted."""

from __future__ import annotations

import csv
import json

import pytest
from typer.testing import CliRunner

import hedgerow as hr
from hedgerow.bench import cases, experiments, sets
from hedgerow.bench.baselines.base import Found
from hedgerow.bench.baselines.ours import Hedgerow
from hedgerow.bench.cases import BRANCH, ONEREC, PAPER
from hedgerow.bench.gate import GateError
from hedgerow.bench.timing import Budget
from hedgerow.cli.main import app


@pytest.fixture
def tiny(monkeypatch):
    """Small enough for a test: the shapes and the budget shrink, the code stays."""
    small = PAPER.of(items=300, levels=3, codebook=32, beam_width=5)
    monkeypatch.setattr(experiments, "PAPER", small)
    monkeypatch.setattr(sets, "PAPER", small)
    monkeypatch.setitem(cases.CASES, "paper", small)
    monkeypatch.setattr(experiments, "BRANCH", BRANCH.of(levels=3))
    monkeypatch.setattr(experiments, "ONEREC", ONEREC.of(codebook=32, beam_width=5))
    monkeypatch.setattr(experiments, "BRANCHES_QUICK", (2, 64))
    monkeypatch.setattr(experiments, "CODEBOOKS_QUICK", (16, 32))
    monkeypatch.setattr(experiments, "SCALE_ITEMS_QUICK", (100, 200))
    monkeypatch.setattr(experiments, "QUICK", Budget(repeats=3, warmup=1, seconds=0.05))


def run(*words: str):
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, done.output
    return done


@pytest.mark.parametrize(
    ("verb", "figures"),
    [("paper", 0), ("scale", 1), ("branch", 2), ("peers", 0)],
)
@pytest.mark.usefixtures("tiny")
def test_verbs_write_tables_and_figures(tmp_path, verb, figures):
    done = run("bench", verb, "--quick", "--backend", "numpy", "--items", "3e2", "--out", str(tmp_path))
    assert "hedgerow" in done.output
    assert "unconstrained" in done.output
    with (tmp_path / f"{verb}-numpy-cpu-quick.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    ours = [row for row in rows if row["method"] == "hedgerow, array" and row["scope"] == "decode"]
    assert ours
    assert all(row["valid"] == "1" and row["recall"] == "1" for row in ours)
    assert all(row["added_ms_per_step"] for row in ours)
    assert json.loads((tmp_path / f"{verb}-numpy-cpu-quick.json").read_text())["benchmark"] == verb
    pngs = list(tmp_path.glob("*.png"))
    assert len(pngs) in (0, figures)


@pytest.mark.usefixtures("tiny")
def test_sets(tmp_path, monkeypatch):
    done = run("bench", "sets", "--quick", "--backend", "numpy", "--items", "3e2", "--out", str(tmp_path))
    assert "a set from a mask, 300 items" in done.output
    with (tmp_path / "sets-numpy-cpu-quick.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rule"] for row in rows if row["scope"] == "set"] == ["50%", "5%"]
    assert {row["rule"] for row in rows if row["method"] == "hedgerow, Numba"} >= {"no set", "a set for each"}
    monkeypatch.setattr(sets, "_alone", lambda _case, _catalog, index, _mask: hr.init_beams(index, 2))
    done = CliRunner().invoke(app, ["bench", "sets", "--quick", "--backend", "numpy", "--out", str(tmp_path)])
    assert isinstance(done.exception, GateError)


def test_build(tmp_path):
    done = run(
        "bench",
        "build",
        "--items",
        "2000",
        "--codebook-sizes",
        "64",
        "--levels",
        "3",
        "--quick",
        "--out",
        str(tmp_path),
    )
    assert "bytes an item" in done.output
    with (tmp_path / "build-quick.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows if row["scope"] == "build"][:2] == [
        "hedgerow",
        "lexsort + STATIC as published",
    ]
    assert [row["bound_nodes"] for row in rows if row["scope"] != "build"] == ["64", "2000", "2000"]


@pytest.mark.usefixtures("tiny")
def test_a_broken_promise_ends_with_exit_code_1(tmp_path, monkeypatch):
    monkeypatch.setattr(Hedgerow, "found", lambda _, beams: Found(beams.codes, beams.scores - 1))
    done = CliRunner().invoke(app, ["bench", "paper", "--quick", "--backend", "numpy", "--out", str(tmp_path)])
    assert isinstance(done.exception, GateError)
    assert not list(tmp_path.iterdir())


def test_another_case(tmp_path):
    run("bench", "paper", "--quick", "--case", "cold", "--items", "500", "--backend", "numpy", "--out", str(tmp_path))
    assert (tmp_path / "cold-numpy-cpu-quick.csv").exists()
    assert CliRunner().invoke(app, ["bench", "paper", "--case", "warm"]).exit_code == 2


def test_plan():
    done = run("plan", "--items", "20e6", "--levels", "8", "--codebook-sizes", "2048")
    assert "the paper's rule" in done.output
    planned = json.loads(run("plan", "--items", "1e6", "--json").output)
    assert planned["items"] == 1_000_000
    assert len(planned["levels"]) == 8


@pytest.mark.parametrize("items", ["0", "-5", "1.5", "many", "1e-3"])
def test_items_must_be_a_whole_number(items):
    done = CliRunner().invoke(app, ["plan", f"--items={items}"])
    assert done.exit_code == 2


@pytest.mark.parametrize("verb", ["paper", "scale", "branch", "build", "peers", "sets"])
def test_help_has_an_example(verb):
    assert f"Example: hedgerow bench {verb}" in run("bench", verb, "--help").output
