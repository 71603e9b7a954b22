"""`benchmarks/billion.py` and `benchmarks/build_parts.py` at small sizes: their checks run, and can fail."""

import csv
import importlib
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import hedgerow as hr

ITEMS = 100_000


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))

    def load(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        return importlib.import_module(name)

    yield load
    for name in ("billion", "build_parts"):
        sys.modules.pop(name, None)


def row_of(path):
    with path.open(newline="") as file:
        return next(csv.DictReader(file))


def test_a_small_index_is_built_searched_and_checked(script, tmp_path):
    (tmp_path / "scratch").mkdir()
    arguments = ("--items", ITEMS, "--memory", 5e6, "--searches", 4, "--out", tmp_path)
    script("billion", *arguments, "--scratch", tmp_path / "scratch").main()
    row = row_of(tmp_path / "billion-quick.csv")
    assert int(row["items"]) == ITEMS
    assert int(row["sids_checked"]) == 4 * 70
    assert float(row["index_gb"]) > 0
    assert "all checks passed" in (tmp_path / "billion-quick.log").read_text()
    # Nothing is left.
    assert not list((tmp_path / "scratch").iterdir())


def test_an_index_that_was_kept_is_checked_again(script, tmp_path):
    (tmp_path / "scratch").mkdir()
    arguments = ("--searches", 2, "--out", tmp_path)
    script("billion", "--items", 5000, "--scratch", tmp_path / "scratch", "--keep", *arguments).main()
    (folder,) = (tmp_path / "scratch").iterdir()
    script("billion", "--index", folder, *arguments).main()
    assert int(row_of(tmp_path / "billion-quick.csv")["items"]) == 5000


@pytest.mark.parametrize("items", [2048, 5000, ITEMS, 10**9, 2**31 - 1])
def test_items_and_sids_are_inverse(script, items):
    billion = script("billion")
    for start in (0, items // 3, items - 1000):
        sids = billion.sids_of(start, start + 1000, items)
        assert sids.max() < 2048
        assert (billion.items_of(sids, items) == np.arange(start, start + 1000)).all()
        assert (np.diff(sids[:, 0].astype(int)) >= 0).all()
        # Another last code is no item.
        sids[:, -1] ^= 1
        assert (billion.items_of(sids, items) == -1).all()
    assert [int(bound) for bound in billion.first_items(np.asarray([0, 2048]), items)] == [0, items]


def test_parts_do_not_share_a_first_code(script):
    billion = script("billion")
    for items, memory in ((ITEMS, 10**6), (10**9, 8 * 10**9), (5000, 1)):
        parts = list(billion.parts(items, memory))
        assert [parts[0][0], parts[-1][1]] == [0, items]
        assert all(before[1] == after[0] for before, after in pairwise(parts))
        firsts = [billion.sids_of(start, start + 1, items)[0, 0] for start, _ in parts]
        assert len(set(firsts)) == len(parts)


def test_an_index_of_other_items_fails_the_checks(script):
    billion = script("billion")
    sids = billion.sids_of(0, 4096, 4096)
    sids[100, 5] ^= 1
    index = hr.build_index(hr.Catalog(sids, codebook_sizes=2048))
    with pytest.raises(AssertionError):
        billion.check_lookups(index, 4096)
    sids[:, 5] ^= 1
    index = hr.build_index(hr.Catalog(sids, codebook_sizes=2048))
    for check in (billion.check_searches, billion.check_exact):
        with pytest.raises(AssertionError):
            check(index, 4096, 2)


def test_the_parts_of_a_build(script, tmp_path):
    script("build_parts", "--items", 5000, "--repeats", 2, "--out", tmp_path).main()
    with (tmp_path / "build-parts-quick.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    parts = ["read", "check", "sort", "trie", "items", "write", "verify", "total"]
    assert [row["part"] for row in rows] == parts
    assert all(float(row["min_seconds"]) > 0 for row in rows)
