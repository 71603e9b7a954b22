"""Compare the time of a merge with that of a build from scratch, and check that both give the same arrays.

``python benchmarks/merge.py --items 1e7 --share 0.01``: uniformly random SIDs of 8 levels of 2,048 codes, with integer
ids. Merge and build run in turn, `--repeats` times. The time to create the catalog of the build is reported separately.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import hedgerow as hr
from hedgerow.index.trie import leaf_arrays

LEVELS, CODEBOOK_SIZE = 8, 2048


def timed(seconds: list[float], action: Callable[[], Any]) -> Any:
    """Run `action`, append its time to `seconds`, and return its result."""
    started = time.perf_counter()
    result = action()
    seconds.append(time.perf_counter() - started)
    return result


def same(left: hr.TrieIndex, right: hr.TrieIndex) -> bool:
    """Whether two indexes have the same arrays and items."""
    pairs = [(a.arrays, b.arrays) for a, b in zip(left.levels, right.levels, strict=True)]
    pairs.append((leaf_arrays(left), leaf_arrays(right)))
    arrays = all(
        mine.keys() == theirs.keys()
        and all(mine[name].dtype == theirs[name].dtype and np.array_equal(mine[name], theirs[name]) for name in mine)
        for mine, theirs in pairs
    )
    facts = left.max_branch_factors == right.max_branch_factors
    return arrays and facts and left.items_table.equals(right.items_table)


def main() -> None:
    """Measure, and print medians with minimum and maximum."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=float, default=1e7, help="number of items of the index")
    parser.add_argument("--share", type=float, default=0.01, help="number of added items, as a share of --items")
    parser.add_argument("--repeats", type=int, default=7, help="number of repetitions")
    options = parser.parse_args()
    items, more = int(options.items), int(options.items * options.share)
    rng = np.random.default_rng(20_260_222)
    sids = rng.integers(0, CODEBOOK_SIZE, (items + more, LEVELS), dtype=np.uint16)
    ids = rng.permutation(items + more)

    def catalog(rows: slice) -> hr.Catalog:
        return hr.Catalog(sids[rows], codebook_sizes=CODEBOOK_SIZE, item_ids=ids[rows])

    index, added = hr.build_index(catalog(slice(0, items))), catalog(slice(items, None))
    index.items_table  # noqa: B018
    hr.merge(index, added)  # Compiles the passes on first use.
    names = ("catalog", "build", "merge", "table of the built", "table of the merged")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(options.repeats):
        whole = timed(seconds["catalog"], lambda: catalog(slice(None)))
        built = timed(seconds["build"], lambda whole=whole: hr.build_index(whole))
        merged = timed(seconds["merge"], lambda: hr.merge(index, added))
        timed(seconds["table of the built"], lambda built=built: built.items_table)
        timed(seconds["table of the merged"], lambda merged=merged: merged.items_table)
    assert same(merged, built)
    for name, values in seconds.items():
        print(f"{name:>20}: {statistics.median(values):.3f} s ({min(values):.3f} to {max(values):.3f})")
    ratios = [build / merge for build, merge in zip(seconds["build"], seconds["merge"], strict=True)]
    print(f"{'build / merge':>20}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
