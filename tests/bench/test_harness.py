"""Cases, timing and records of the benchmarks."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from hedgerow.bench.cases import BRANCH, CASES, COLD, PAPER, logits_of, sids_of
from hedgerow.bench.machine import CpuTimes, conditions, contention_warnings, cpu_times, load_warnings
from hedgerow.bench.records import Report
from hedgerow.bench.timing import MIN_REPEATS, Budget, Samples, measure


def test_cases_have_the_published_sizes():
    assert (PAPER.batch, PAPER.beam_width, PAPER.levels, PAPER.codebook_size) == (2, 70, 8, 2048)
    assert (COLD.batch, COLD.beam_width, COLD.levels, COLD.codebook_size, COLD.items) == (16, 20, 4, 256, 12_000)
    assert {"paper", "cold", "branch", "onerec-1x50", "onerec-8x512"} <= set(CASES)
    assert PAPER.logit_bytes(0) == 2 * 2048 * 4
    assert PAPER.logit_bytes(1) == 140 * 2048 * 4


def test_catalogs_and_logits_are_reproducible():
    case = COLD.of(items=1000)
    sids = sids_of(case)
    assert sids.shape == (1000, 4)
    assert sids.dtype == np.uint8
    assert sids.max() < 256
    np.testing.assert_array_equal(sids, sids_of(case))
    assert not np.array_equal(sids, sids_of(case.of(seed=1)))
    for first, second in zip(logits_of(case), logits_of(case), strict=True):
        np.testing.assert_array_equal(first, second)
    assert [level.shape for level in logits_of(BRANCH.of(codebook_size=4))] == [(2, 1, 4)] * 8


def test_measure_runs_each_once_per_round_in_another_order():
    order: list[str] = []
    thunks = {name: (lambda name=name: order.append(name)) for name in "abc"}
    times = measure(thunks, Budget(repeats=30, warmup=1, seconds=10))
    rounds = ["".join(order[first : first + 3]) for first in range(0, len(order), 3)]
    assert rounds[0] == "abc"
    assert set(rounds[1:]) == {"abc", "acb", "bac", "bca", "cab", "cba"}
    assert {name: len(samples.seconds) for name, samples in times.items()} == {"a": 30, "b": 30, "c": 30}


def test_a_slow_method_stops_after_the_minimum_of_runs():
    times = measure({"slow": lambda: sum(range(1000))}, Budget(repeats=50, warmup=0, seconds=0))
    assert len(times["slow"].seconds) == MIN_REPEATS


def test_summary():
    summary = Samples(np.arange(1, 101) / 1000).summary()
    assert summary["median_ms"] == pytest.approx(50.5)
    assert summary["p10_ms"] == pytest.approx(10.9)
    assert summary["p90_ms"] == pytest.approx(90.1)
    assert summary["runs"] == 100


def test_report_files_contain_the_conditions(tmp_path):
    facts = conditions() | {"backend": "numpy", "device": "cpu"}
    report = Report(
        "paper", facts, [{"method": "a", "step_ms": 0.123456789}, {"method": "b", "more": 1}], [("x", "c", "w")]
    )
    table, document = report.save(tmp_path)
    assert table.name == "paper-numpy-cpu.csv"
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["step_ms"] == "0.123457"
    assert rows[1]["more"] == "1"
    assert rows[0]["cpu"] == facts["cpu"]
    content = json.loads(document.read_text())
    assert content["skipped"] == [{"case": "x", "method": "c", "why": "w"}]
    assert {"cpu", "cores", "memory_gb", "commit", "versions", "threads"} <= set(content["conditions"])
    import platform

    assert platform.node() not in document.read_text() or len(platform.node()) < 4


def test_cpu_times(tmp_path):
    assert cpu_times(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text("cpu  100 20 30 400 50 6 7 8 0 0\ncpu0 1 1 1 1\n")
    found = cpu_times(tmp_path)
    assert found is not None
    assert found.busy < found.total
    assert found.stolen == 8 * found.total / 621
    assert found.own > 0


def test_warnings_about_other_processes(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    for load, count in ((1.9, 0), (2.1, 1)):
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load, 0, 0))
        assert len(load_warnings()) == count
    start = CpuTimes(100, 50, 1, 10)
    assert contention_warnings(start, CpuTimes(140, 62, 1, 19)) == []
    assert "used 30% of the cores" in contention_warnings(start, CpuTimes(140, 71, 1, 19))[0]
    assert "took 5% of the CPU time" in contention_warnings(start, CpuTimes(140, 59, 3, 19))[0]
    assert contention_warnings(None, start) == contention_warnings(start, start) == []
