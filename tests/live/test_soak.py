"""Four threads search while a writer adds, updates, removes, publishes, rolls back and prunes.

Every result must be correct for its version. Takes a few seconds; set HEDGEROW_SOAK_SECONDS=60 for a longer run.
"""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from livesupport import items_of

import hedgerow as hr

SIZES = (16, 32, 64)
SECONDS = float(os.environ.get("HEDGEROW_SOAK_SECONDS", "3"))


class Writer(threading.Thread):
    """Changes the live index at random, and records the expected items of each version."""

    def __init__(self, live, items, until):
        super().__init__()
        self.live, self.until, self.rng = live, until, np.random.default_rng(0)
        self.expected, self.next_id, self.failed = {1: items}, len(items), None

    def random_catalog(self, count, ids):
        sids = np.stack([self.rng.integers(0, size, count) for size in SIZES], axis=1)
        return hr.Catalog(sids, codebook_sizes=SIZES, item_ids=ids), dict(zip(ids.tolist(), sids.tolist(), strict=True))

    def run(self):
        try:
            while time.monotonic() < self.until:
                self.change()
        except BaseException as error:
            self.failed = error

    def change(self):
        items = self.expected[self.live.version.number]
        kind = self.rng.choice(["add", "update", "remove", "publish", "rollback"])
        ids = self.rng.permutation(list(items))
        new = np.arange(self.next_id, self.next_id + 20)
        self.next_id += 20
        if kind == "add":
            catalog, more = self.random_catalog(20, new)
            version, items = self.live.add(catalog), items | more
        elif kind == "update":
            catalog, more = self.random_catalog(10, ids[:10])
            removed = ids[10:25].tolist()
            version = self.live.update(catalog, removed=removed)
            items = {item: sid for item, sid in (items | more).items() if item not in removed}
        elif kind == "remove":
            version = self.live.remove(ids[:5])
            items = {item: sid for item, sid in items.items() if item not in ids[:5]}
        elif kind == "publish":
            catalog, items = self.random_catalog(500, np.arange(self.next_id, self.next_id + 500))
            self.next_id += 500
            version = self.live.publish(hr.build_index(catalog))
        else:
            version = self.live.rollback(int(self.rng.choice([info.number for info in self.live.versions()])))
            items = self.expected[version.number]
        self.expected[version.number] = items
        self.live.prune(keep=4)


class Searcher(threading.Thread):
    """Searches on the current version, and records the version and its results."""

    def __init__(self, live, seed, until, kernel):
        super().__init__()
        self.live, self.until, self.kernel = live, until, kernel
        self.rng, self.results, self.failed = np.random.default_rng(seed), [], None

    def run(self):
        try:
            while time.monotonic() < self.until:
                version = self.live.refresh()

                def logits(beams):
                    # Lets the other threads run between two steps.
                    time.sleep(0.0005)
                    return self.rng.normal(size=(*beams.states.shape, SIZES[beams.level])).astype(np.float32)

                device_index = version.to("numpy")
                beams = hr.beam_search(device_index, logits, batch_size=2, beam_width=10, kernel=self.kernel)
                for results in version.results(beams):
                    self.results.append((version.number, results.item_ids, results.sids.tolist()))
        except BaseException as error:
            self.failed = error


@pytest.mark.parametrize("headroom", [None, 1.5])
def test_every_result_is_correct_for_its_version(headroom, tmp_path):
    until = time.monotonic() + SECONDS / 2
    rng = np.random.default_rng(1)
    sids = np.stack([rng.integers(0, size, 500) for size in SIZES], axis=1)
    index = hr.build_index(hr.Catalog(sids, codebook_sizes=SIZES, item_ids=np.arange(500)))
    path = tmp_path / "soak.live"
    live = hr.LiveIndex.create(path, index, headroom=headroom)
    writer = Writer(live, items_of(live.version), until)
    # Two searchers share the writer's LiveIndex; two have another one, as in another process.
    reader = hr.LiveIndex.open(path, headroom=headroom)
    searchers = [
        Searcher(live if seed % 2 else reader, seed, until, "native" if seed < 2 else "array") for seed in range(4)
    ]
    for thread in (writer, *searchers):
        thread.start()
    for thread in (writer, *searchers):
        thread.join()
    assert [thread.failed for thread in (writer, *searchers)] == [None] * 5
    found = [entry for searcher in searchers for entry in searcher.results]
    for number, ids, codes in found:
        items = writer.expected[number]
        assert all(items[item] == sid for item, sid in zip(ids, codes, strict=True))
    versions = {number for number, _, _ in found}
    print(f"{len(found):,} results on {len(versions):,} of {len(writer.expected):,} versions")
    assert len(versions) > 3
    assert items_of(hr.LiveIndex.open(path).version) == writer.expected[live.version.number]


WRITER = """
import sys, numpy as np, hedgerow as hr
live, rng = hr.LiveIndex.open(sys.argv[1]), np.random.default_rng(int(sys.argv[2]))
print("ready", flush=True)
while True:
    ids = live.version.index.item_ids.to_numpy()[~live.version.removed]
    new = int(ids.max()) + 1
    kind = rng.integers(5)
    catalog = hr.Catalog(rng.integers(0, 16, (5, 3)), codebook_sizes=(16, 32, 64), item_ids=np.arange(new, new + 5))
    if kind == 0:
        live.add(catalog)
    elif kind == 1:
        live.update(catalog, removed=ids[:5])
    elif kind == 2:
        live.remove(ids[:2])
    elif kind == 3:
        live.rollback(int(rng.choice([info.number for info in live.versions()])))
    else:
        live.prune(keep=3)
"""


def test_killed_writers_leave_complete_versions(tmp_path):
    """A writer is killed at a random moment, again and again; every version that is kept is correct."""
    pytest.importorskip("fcntl")
    rng = np.random.default_rng(2)
    path = tmp_path / "soak.live"
    sids = np.stack([rng.integers(0, size, 500) for size in SIZES], axis=1)
    hr.LiveIndex.create(path, hr.build_index(hr.Catalog(sids, codebook_sizes=SIZES, item_ids=np.arange(500))))
    until, rounds = time.monotonic() + SECONDS, 0
    while rounds == 0 or time.monotonic() < until:
        command = [sys.executable, "-c", WRITER, str(path), str(rounds)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            time.sleep(rng.random())
            assert writer.poll() is None
            writer.kill()
        live = hr.LiveIndex.open(path)
        assert live.verify() == {}
        assert live.version.number in [info.number for info in live.versions()]
        rounds += 1
    live = hr.LiveIndex.open(path)
    live.remove(live.version.index.item_ids[np.flatnonzero(~live.version.removed)[0] :][:1])
    assert sorted(os.listdir(path)) == [".lock", "current.json", "versions"]
