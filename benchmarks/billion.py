"""Build, search and check an index of one billion items of 8 levels of 2,048 codes, within a memory limit.

    python benchmarks/billion.py                 1e9 items: about 36 GB of disk, 8 GB of memory
    python benchmarks/billion.py --items 1e7     a smaller one
    python benchmarks/billion.py --index FOLDER  check one again that --keep left there

The SID of item i is a function of i that can be inverted: the first code is i * 2,048 // N, and the rest are bits of
a permutation of 64-bit numbers and of a hash. So ranges of SIDs are made, built and joined one after the other, and
whether a found SID exists, and of which item, is computed without the index. Searches whose first code is fixed must
equal a brute force over all SIDs with this first code.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import hedgerow as hr
from hedgerow.bench.machine import conditions
from hedgerow.bench.records import Report, Row
from hedgerow.index.arrow import take_values
from hedgerow.index.build_on_disk import join_on_disk, save_finished, scratch_beside
from hedgerow.index.order_on_disk import order_on_disk
from hedgerow.index.trie import Trie

RESULTS = Path(__file__).parent / "results"
# What is known of the build, next to the index.
BUILT = "built.json"
LEVELS, CODE_BITS = 8, 11
CODES = 1 << CODE_BITS
BATCH, BEAM_WIDTH, EXACT = 2, 70, 20
# Working memory of a build per item: its sort, its arrays and its row in the table of items.
ITEM_BYTES = 200
# Larger parts do not fit the cache of the processor any better, and take longer to sort.
PART_ITEMS = 8_000_000
TAIL_BITS = CODE_BITS * (LEVELS - 1) - 64
# The bits of the last code but one that the tail holds.
REST = np.uint64(TAIL_BITS - CODE_BITS)
MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
SALT = np.uint64(0x9E3779B97F4A7C15)


def mixed(numbers: np.ndarray) -> np.ndarray:
    """A permutation of the 64-bit numbers."""
    for shift, multiplier in zip((30, 27), MULTIPLIERS, strict=True):
        numbers = (numbers ^ (numbers >> np.uint64(shift))) * np.uint64(multiplier)
    return numbers ^ (numbers >> np.uint64(31))


def unmixed(numbers: np.ndarray) -> np.ndarray:
    """The inverse of `mixed`."""
    numbers = numbers ^ (numbers >> np.uint64(31)) ^ (numbers >> np.uint64(62))
    for shift, multiplier in zip((27, 30), reversed(MULTIPLIERS), strict=True):
        numbers = numbers * np.uint64(pow(multiplier, -1, 1 << 64))
        numbers = numbers ^ (numbers >> np.uint64(shift)) ^ (numbers >> np.uint64(2 * shift))
    return numbers


def tail_of(numbers: np.ndarray) -> np.ndarray:
    """The last bits of the SIDs."""
    return mixed(numbers ^ SALT) >> np.uint64(64 - TAIL_BITS)


def first_items(codes: np.ndarray, items: int) -> np.ndarray:
    """The first item of each first code [R]; for CODES, N."""
    return -(-codes.astype(np.int64) * items // CODES)


def sids_of(start: int, stop: int, items: int) -> np.ndarray:
    """The SIDs of the items `start` to `stop` - 1 of N: uint16 [R, L]."""
    ids = np.arange(start, stop, dtype=np.int64)
    sids = np.empty((len(ids), LEVELS), np.uint16)
    first = ids * CODES // items
    sids[:, 0] = first
    numbers = (first.astype(np.uint64) << np.uint64(32)) | (ids - first_items(first, items)).astype(np.uint64)
    keys, tails = mixed(numbers), tail_of(numbers)
    for level in range(1, LEVELS - 2):
        sids[:, level] = (keys >> np.uint64(64 - CODE_BITS * level)) & np.uint64(CODES - 1)
    sids[:, -2] = ((keys << REST) & np.uint64(CODES - 1)) | (tails >> np.uint64(CODE_BITS))
    sids[:, -1] = tails & np.uint64(CODES - 1)
    return sids


def items_of(sids: np.ndarray, items: int) -> np.ndarray:
    """The item of each SID [R, L], int64; -1 if no item has it."""
    codes = sids.astype(np.uint64)
    keys = np.zeros(len(codes), np.uint64)
    for level in range(1, LEVELS - 2):
        keys = (keys << np.uint64(CODE_BITS)) | codes[:, level]
    keys = (keys << (np.uint64(CODE_BITS) - REST)) | (codes[:, -2] >> REST)
    tails = ((codes[:, -2] & np.uint64(2 ** int(REST) - 1)) << np.uint64(CODE_BITS)) | codes[:, -1]
    numbers = unmixed(keys)
    first, last = (first_items(sids[:, 0].astype(np.int64) + more, items) for more in (0, 1))
    offsets = (numbers & np.uint64(2**32 - 1)).astype(np.int64)
    exists = (numbers >> np.uint64(32) == codes[:, 0]) & (offsets < last - first) & (tail_of(numbers) == tails)
    return np.where(exists, first + offsets, -1)


def parts(items: int, memory: int) -> Iterator[tuple[int, int]]:
    """The first item of each part, and the item after its last. Parts do not share a first code."""
    count = max(1, -(-items // min(PART_ITEMS, max(1, memory // ITEM_BYTES))))
    codes = np.unique(np.arange(count + 1) * CODES // count)
    bounds = np.unique(first_items(codes, items)).tolist()
    yield from pairwise(bounds)


class Watch(threading.Thread):
    """The peaks of this process: its memory, its memory without mapped files, and its disk, read ten times a second.

    Args:
        folder: the folder that holds all files.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder, self.stopped, self.anonymous, self.disk = folder, threading.Event(), 0, 0

    def run(self) -> None:
        """Read until it is stopped."""
        while not self.stopped.wait(0.1):
            fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            self.anonymous = max(self.anonymous, int(fields["RssAnon"].split()[0]) * 1024)
            self.disk = max(self.disk, disk_of(self.folder))

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stopped.set()
        self.join()


def disk_of(folder: Path) -> int:
    """The bytes that the files of a folder take on the disk."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_blocks * 512
    return total


@dataclass
class Log:
    """A file of the time of each step, which is also printed.

    Attributes:
        path: the file.
        seconds: the seconds of each step that has ended.
    """

    path: Path
    seconds: dict[str, float] = field(default_factory=dict)

    def __call__(self, text: str) -> None:
        """Write a line."""
        line = f"{time.strftime('%H:%M:%S')} load {os.getloadavg()[0]:4.1f}  {text}"
        print(line, flush=True)
        with self.path.open("a") as file:
            file.write(line + "\n")

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step."""
        self(f"{name} ...")
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started
        self(f"{name}: {self.seconds[name]:,.1f} s")


def build(items: int, memory: int, output: Path, log: Log) -> None:
    """Build and save the index, one part in memory at a time."""

    def tries() -> Iterator[Trie]:
        for number, (start, stop) in enumerate(parts(items, memory)):
            if number % 10 == 0:
                log(f"part {number}: from item {start:,}")
            catalog = hr.Catalog(sids_of(start, stop, items), codebook_sizes=CODES, item_ids=np.arange(start, stop))
            yield hr.build_index(catalog, dense_levels=())

    with scratch_beside(output) as scratch:
        path = scratch / "items"
        with log.step("parts"):
            finished, sha256 = join_on_disk(tries(), (CODES,) * LEVELS, path)
        with log.step("order of ids"):
            order = order_on_disk(path, scratch, max(1, memory // ITEM_BYTES))
        with log.step("save"):
            save_finished(finished, output, path, sha256, order)


def logits_of(rng: np.random.Generator, batch: int, first_code: int | None) -> Callable[[hr.Beams], np.ndarray]:
    """Random logits. With a first code, all others are banned."""

    def logits(beams: hr.Beams) -> np.ndarray:
        values = rng.standard_normal((batch, beams.states.shape[1], CODES), np.float32)
        if beams.level == 0 and first_code is not None:
            values[..., np.arange(CODES) != first_code] = -np.inf
        return values

    return logits


def ids_of(index: hr.TrieIndex, rows: np.ndarray) -> np.ndarray:
    """The ids of rows. Arrow's take would copy all record batches into one first."""
    return take_values(index.item_ids, rows).to_numpy()


def check_lookups(index: hr.TrieIndex, items: int) -> int:
    """Look up SIDs of items from all of the catalog, and SIDs that do not exist. Returns their number."""
    rng = np.random.default_rng(1)
    count = 0
    for start in rng.integers(0, items, 64).tolist():
        stop = min(items, start + 4096)
        sids = sids_of(start, stop, items)
        leaves = index.find(sids)
        assert (leaves >= 0).all()
        # No two items share a SID, so a leaf is a row.
        assert np.array_equal(ids_of(index, leaves), np.arange(start, stop))
        assert np.array_equal(items_of(sids, items), np.arange(start, stop))
        wrong = sids.copy()
        wrong[np.arange(len(sids)), rng.integers(1, LEVELS, len(sids))] ^= 1
        assert np.array_equal(index.find(wrong) >= 0, items_of(wrong, items) >= 0)
        count += 2 * len(sids)
    return count


def check_searches(index: hr.TrieIndex, items: int, searches: int) -> tuple[int, list[float]]:
    """Search, and check each found SID against the function that makes them.

    Returns:
        The number of SIDs that were found, and the seconds per step of each batch.
    """
    device_index, rng, found, seconds = index.to("numpy"), np.random.default_rng(2), 0, []
    for _ in range(0, searches, BATCH):
        beams, spent, logits = hr.init_beams(device_index, BATCH), 0.0, logits_of(rng, BATCH, None)
        for _ in range(LEVELS):
            values = logits(beams)
            started = time.perf_counter()
            beams = hr.step(device_index, beams, values, beam_width=BEAM_WIDTH)
            spent += time.perf_counter() - started
        sids = beams.codes[beams.states >= 0]
        expected = items_of(sids, items)
        assert len(sids) == BATCH * min(BEAM_WIDTH, items)
        assert (expected >= 0).all()
        assert np.array_equal(ids_of(index, beams.states[beams.states >= 0]), expected)
        found += len(sids)
        seconds.append(spent / LEVELS)
    return found, seconds


def brute_force(sids: np.ndarray, logits: Callable[[Any], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The beams of one search over SIDs [R, L] by looking at each SID at each level: codes [M, L] and scores [M]."""
    beam_of = np.zeros(len(sids), np.int64)
    prefixes, scores = np.zeros((1, 0), np.int64), np.zeros(1)
    for level in range(LEVELS):
        # As many rows as a search has, where some beams may be dead.
        rows = SimpleNamespace(states=np.zeros((1, BEAM_WIDTH if level else 1)), level=level)
        values = logits(rows)[0, : len(prefixes)].astype(np.float64)
        top = values.max(axis=1, keepdims=True)
        log_probs = values - top - np.log(np.exp(values - top).sum(axis=1, keepdims=True))
        pairs = np.unique(beam_of * CODES + sids[:, level])
        beams, codes = pairs // CODES, pairs % CODES
        continued = np.column_stack((prefixes[beams], codes))
        total = scores[beams] + log_probs[beams, codes]
        alive = np.flatnonzero(total > -np.inf)
        best = alive[np.lexsort((*continued[alive].T[::-1], -total[alive]))][:BEAM_WIDTH]
        new_beam = np.full(CODES * len(prefixes), -1)
        new_beam[pairs[best]] = np.arange(len(best))
        beam_of = new_beam[beam_of * CODES + sids[:, level]]
        sids, beam_of = sids[beam_of >= 0], beam_of[beam_of >= 0]
        prefixes, scores = continued[best], total[best]
    return prefixes, scores


def check_exact(index: hr.TrieIndex, items: int, searches: int) -> int:
    """Compare searches whose first code is fixed with a brute force. Returns the number of SIDs with this code."""
    device_index, seen = index.to("numpy"), 0
    for number in range(searches):
        code = int(np.random.default_rng(3 + number).integers(0, CODES))
        start, stop = first_items(np.asarray([code, code + 1]), items).tolist()
        sids = sids_of(start, stop, items)
        mine, theirs = (logits_of(np.random.default_rng(number), 1, code) for _ in range(2))
        beams = hr.beam_search(device_index, mine, batch_size=1, beam_width=BEAM_WIDTH)
        codes, scores = brute_force(sids, theirs)
        assert np.array_equal(beams.codes[beams.states >= 0], codes), f"search {number} of first code {code} differs"
        assert np.allclose(beams.scores[beams.states >= 0], scores, atol=1e-4)
        seen += len(sids)
    return seen


def built_row(items: int, memory: int, folder: Path, log: Log) -> Row:
    """Build the index, and return what is known of the build. It is written next to the index as well."""
    with Watch(folder) as watch:
        build(items, memory, folder / "index", log)
    facts = conditions()
    row: Row = {"items": items, "levels": LEVELS, "codebook_size": CODES, "memory_limit_gb": memory / 1e9}
    row |= {"build_commit": facts["commit"], "build_load": facts["load"]}
    row["build_seconds"] = sum(log.seconds.values())
    row |= {f"{name.replace(' ', '_')}_seconds": spent for name, spent in log.seconds.items()}
    row |= {"peak_anonymous_gb": watch.anonymous / 1e9, "peak_disk_gb": watch.disk / 1e9}
    (folder / BUILT).write_text(json.dumps(row))
    return row


def checked_row(items: int, searches: int, output: Path, log: Log) -> Row:
    """Check the index, and return what was measured."""
    nbytes, log.seconds = disk_of(output), {}
    with log.step("open"):
        index = hr.load_index(output, mmap=True, verify="none")
    with log.step("verify"):
        hr.load_index(output, mmap=True, verify="full")
    with log.step("lookups"):
        lookups = check_lookups(index, items)
    with log.step("searches"):
        found, seconds = check_searches(index, items, searches)
    with log.step("brute force"):
        seen = check_exact(index, items, EXACT)
    log(f"all checks passed: {lookups:,} lookups, {found:,} SIDs found, {EXACT} searches equal a brute force")
    step = np.asarray(seconds) * 1e3
    return {
        **{f"{name.replace(' ', '_')}_seconds": spent for name, spent in log.seconds.items()},
        "index_gb": nbytes / 1e9,
        "trie_bytes_per_item": index.nbytes / items,
        "bytes_per_item": nbytes / items,
        "nodes": sum(index.nodes_per_level),
        "lookups": lookups,
        "searches": searches,
        "sids_checked": found,
        "exact_searches": EXACT,
        "brute_force_sids": seen,
        "step_min_ms": float(step.min()),
        "step_median_ms": float(np.median(step)),
        "step_first_ms": float(step[0]),
    }


def main() -> None:
    """Run it, and save the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=float, default=1e9, help="N, at least 2,048 (default: 1e9)")
    parser.add_argument("--memory", type=float, default=8e9, help="bytes of memory of the build (default: 8e9)")
    parser.add_argument("--searches", type=int, default=1000, help="number of random searches (default: 1,000)")
    parser.add_argument("--scratch", type=Path, help="the folder of all files (default: a temporary one)")
    parser.add_argument("--keep", action="store_true", help="keep the folder of the index")
    parser.add_argument("--index", type=Path, metavar="FOLDER", help="check the index of a folder that was kept")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    given: Path | None = arguments.index
    kept: Row | None = None if given is None else json.loads((given / BUILT).read_text())
    items = int(arguments.items if kept is None else kept["items"])
    if not CODES <= items < 2**31:
        parser.error(f"--items must be {CODES:,} to 2,147,483,647; got {items:,}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    report = Report("billion", conditions() | {"quick": items < 1e9, "batch": BATCH, "beam_width": BEAM_WIDTH}, [])
    log = Log(arguments.out / f"{report.stem}.log")
    if given is None:
        log.path.unlink(missing_ok=True)
    folder = given or Path(tempfile.mkdtemp(prefix="hedgerow-billion-", dir=arguments.scratch))
    try:
        built = built_row(items, int(arguments.memory), folder, log) if kept is None else kept
        row = built | checked_row(items, arguments.searches, folder / "index", log)
    finally:
        if not arguments.keep and kept is None:
            shutil.rmtree(folder)
    for path in replace(report, rows=[row]).save(arguments.out):
        print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
