"""`hedgerow bench` and `hedgerow plan` at tiny sizes. The tests do not check times."""

from __future__ import annotations

import csv
import json

import pytest
from typer.testing import CliRunner

import hedgerow as hr
from hedgerow.bench import cases, experiments, first_call, sets
from hedgerow.bench.baselines.base import SearchResult
from hedgerow.bench.baselines.ours import Hedgerow
from hedgerow.bench.cases import BRANCH, ONEREC, PAPER
from hedgerow.bench.gate import GateError
from hedgerow.bench.timing import Budget
from hedgerow.cli.main import app


@pytest.fixture
def tiny(monkeypatch):
    """Reduce the sizes and the budget of the benchmarks."""
    small = PAPER.of(items=300, levels=3, codebook_size=32, beam_width=5)
    monkeypatch.setattr(experiments, "PAPER", small)
    monkeypatch.setattr(sets, "PAPER", small)
    monkeypatch.setitem(cases.CASES, "paper", small)
    monkeypatch.setattr(experiments, "BRANCH", BRANCH.of(levels=3))
    monkeypatch.setattr(experiments, "ONEREC", ONEREC.of(codebook_size=32, beam_width=5))
    monkeypatch.setattr(experiments, "BRANCH_FACTORS_QUICK", (2, 64))
    monkeypatch.setattr(experiments, "CODEBOOK_SIZES_QUICK", (16, 32))
    monkeypatch.setattr(experiments, "SCALE_ITEMS_QUICK", (100, 200))
    monkeypatch.setattr(experiments, "QUICK", Budget(repeats=3, warmup=1, seconds=0.05))


def run(*arguments: str):
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.parametrize(
    ("verb", "figures"),
    [("paper", 0), ("scale", 1), ("branch", 2), ("peers", 0)],
)
@pytest.mark.usefixtures("tiny")
def test_verbs_write_tables_and_figures(tmp_path, verb, figures):
    result = run("bench", verb, "--quick", "--backend", "numpy", "--items", "3e2", "--out", str(tmp_path))
    assert "hedgerow" in result.output
    assert "unconstrained" in result.output
    with (tmp_path / f"{verb}-numpy-cpu-quick.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    ours = [row for row in rows if row["method"] == "hedgerow, array" and row["scope"] == "decode"]
    assert ours
    assert all(row["valid"] == "1" and row["recall"] == "1" for row in ours)
    assert all(row["added_ms_per_step"] for row in ours)
    assert json.loads((tmp_path / f"{verb}-numpy-cpu-quick.json").read_text())["benchmark"] == verb
    pngs = list(tmp_path.glob("*.png"))
    assert len(pngs) in (0, figures)


@pytest.mark.parametrize("verb", ["paper", "scale", "branch", "peers", "sets", "build"])
@pytest.mark.usefixtures("tiny")
def test_verbs_write_nothing_unasked(tmp_path, monkeypatch, verb):
    monkeypatch.chdir(tmp_path)
    backend = ["--levels", "2"] if verb == "build" else ["--backend", "numpy"]
    result = run("bench", verb, "--quick", "--items", "2e2", *backend)
    assert "wrote" not in result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("tiny")
def test_a_busy_machine_is_named(monkeypatch):
    from hedgerow.bench import machine

    monkeypatch.setattr("os.getloadavg", lambda: (99.0, 1.0, 1.0))
    moments = iter([machine.CpuTimes(100, 50, 0, 5), machine.CpuTimes(110, 59, 1, 7)])
    monkeypatch.setattr(machine, "cpu_times", lambda: next(moments))
    result = run("bench", "sets", "--quick", "--backend", "numpy", "--items", "3e2")
    warnings = " ".join(result.stderr.split())
    assert "the load average is 99.0 on" in warnings
    assert "other processes used 70% of the cores" in warnings
    assert "other virtual machines took 10%" in warnings


@pytest.mark.usefixtures("tiny")
def test_sets(tmp_path, monkeypatch):
    result = run("bench", "sets", "--quick", "--backend", "numpy", "--items", "3e2", "--out", str(tmp_path))
    assert "set from a mask, 300 items" in result.output
    with (tmp_path / "sets-numpy-cpu-quick.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    of_sets = [row for row in rows if row["scope"] == "set"]
    assert [row["rule"] for row in of_sets] == ["50%", "5%", "a & b, first", "a & b, again"]
    assert all(float(row["median_ms"]) >= float(row["least_ms"]) > 0 for row in of_sets)
    assert {row["rule"] for row in rows if row["method"] == "hedgerow, native"} >= {"no set", "a set for each"}
    monkeypatch.setattr(sets, "_subset_search", lambda _case, _catalog, index, _mask: hr.init_beams(index, 2))
    result = CliRunner().invoke(app, ["bench", "sets", "--quick", "--backend", "numpy", "--out", str(tmp_path)])
    assert isinstance(result.exception, GateError)


@pytest.mark.usefixtures("tiny")
def test_sets_on_jax(tmp_path, monkeypatch):
    pytest.importorskip("jax")
    # The CPU stands in for a device, for the row of a mask there.
    monkeypatch.setattr(sets, "is_accelerated", lambda _: True)
    run("bench", "sets", "--quick", "--backend", "jax", "--items", "3e2", "--out", str(tmp_path))
    with (tmp_path / "sets-jax-cpu-quick.csv").open(newline="") as file:
        all_rows = list(csv.DictReader(file))
    assert "50%, mask on cpu" in [row["rule"] for row in all_rows]
    rows = [row for row in all_rows if row["scope"] == "decode"]
    assert {row["method"] for row in rows} == {"hedgerow, array"}
    assert len(rows) == 6


def test_build(tmp_path):
    result = run(
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
    assert "bytes per item" in result.output
    with (tmp_path / "build-quick.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows if row["scope"] == "build"][:3] == [
        "hedgerow",
        "hedgerow, compact",
        "lexsort + STATIC as published",
    ]
    assert [row["bound_nodes"] for row in rows if row["scope"] != "build"] == ["64", "2000", "2000"]


def test_first_call(tmp_path, monkeypatch):
    methods = {"numpy": first_call.METHODS["numpy"], "other": ("step, other", ("no_such_package",), "demo")}
    monkeypatch.setattr(first_call, "METHODS", methods)
    result = run("bench", "first-call", "--quick", "--items", "2e3", "--out", str(tmp_path))
    assert "no_such_package is not installed" in " ".join(result.output.split())
    with (tmp_path / "first-call-quick.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    parts = [float(row[f"{part}_seconds"]) for part in ("import", "load", "first")]
    assert min(parts) > 0
    assert sum(parts) == pytest.approx(float(row["total_seconds"]), abs=0.01)


@pytest.mark.usefixtures("tiny")
def test_a_broken_promise_stops_the_benchmark(tmp_path, monkeypatch):
    monkeypatch.setattr(Hedgerow, "result", lambda _, beams: SearchResult(beams.codes, beams.scores - 1))
    result = CliRunner().invoke(app, ["bench", "paper", "--quick", "--backend", "numpy", "--out", str(tmp_path)])
    assert isinstance(result.exception, GateError)
    assert not list(tmp_path.iterdir())


def test_another_case(tmp_path):
    run("bench", "paper", "--quick", "--case", "cold", "--items", "500", "--backend", "numpy", "--out", str(tmp_path))
    assert (tmp_path / "cold-numpy-cpu-quick.csv").exists()
    assert CliRunner().invoke(app, ["bench", "paper", "--case", "warm"]).exit_code == 2


def test_plan():
    result = run("plan", "--items", "20e6", "--levels", "8", "--codebook-sizes", "2048")
    assert "the paper's rule" in result.output
    planned = json.loads(run("plan", "--items", "1e6", "--json").output)
    assert planned["items"] == 1_000_000
    assert len(planned["levels"]) == 8


def test_plan_with_a_codebook_size_per_level():
    planned = json.loads(run("plan", "--items", "1e6", "--codebook-sizes", "256,2e3,64", "--json").output)
    assert [level["codebook_size"] for level in planned["levels"]] == [256, 2000, 64]
    words = ["plan", "--items", "1e6", "--levels", "4", "--codebook-sizes", "256,256,64"]
    assert "expected 4 codebook sizes" in str(CliRunner().invoke(app, words).exception)
    for sizes in ("256,,64", "256,many", "0", "256,0"):
        assert CliRunner().invoke(app, ["plan", "--items", "1e6", "--codebook-sizes", sizes]).exit_code == 2


@pytest.mark.parametrize("items", ["0", "-5", "1.5", "many", "1e-3"])
def test_items_must_be_a_positive_integer(items):
    result = CliRunner().invoke(app, ["plan", f"--items={items}"])
    assert result.exit_code == 2


@pytest.mark.parametrize("verb", ["paper", "scale", "branch", "build", "peers", "sets"])
def test_help_has_an_example(verb):
    assert f"Example: hedgerow bench {verb}" in run("bench", verb, "--help").output
