"""A minute of mixed traffic and changes: memory and open files stay flat. Takes a minute: HEDGEROW_TEST_SERVE=1.

HEDGEROW_SOAK_SECONDS=600 makes it longer.
"""

import os
import random
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from serve.processes import running
from serve.support import TOKEN, more_items, wait_until

import hedgerow as hr

SECONDS = float(os.environ.get("HEDGEROW_SOAK_SECONDS", "60"))
# Caches of the process fill during this time: sets, compiled kernels, pages of the allocator.
WARM_SECONDS = SECONDS / 3
pytestmark = pytest.mark.skipif(
    "HEDGEROW_TEST_SERVE" not in os.environ, reason="make test-serve runs this test: a minute"
)


def memory_of(pid):
    """Resident bytes of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1_024
    raise AssertionError("no VmRSS")


def files_of(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


class Traffic(threading.Thread):
    """A client that sends requests of all kinds, each on a new connection now and then."""

    def __init__(self, client, seed, until):
        super().__init__()
        self.client, self.rng, self.until = client, random.Random(seed), until
        self.statuses = {}

    def document(self):
        rng = self.rng
        prompt = [rng.randrange(1, 200) for _ in range(rng.randrange(1, 20))]
        rules = {
            "k": rng.randrange(1, 20),
            "beam_width": rng.randrange(1, 50),
            "sets": ["recent"],
            "where": f"price > {rng.randrange(1_000)} / 60.0",
            "exclude": [f"t{rng.randrange(150)}" for _ in range(rng.randrange(50))],
            "candidates": [f"t{rng.randrange(150)}" for _ in range(rng.randrange(50))],
            "caps": {"year": 1},
            "nothing": 1,
        }
        return {"prompt": prompt} | {name: value for name, value in rules.items() if rng.random() < 0.2}

    def run(self):
        while time.monotonic() < self.until:
            path = self.rng.choice(["/v1/retrieve"] * 6 + ["/v1/trace", "/metrics", "/v1/index"])
            document = self.document()
            if path == "/v1/trace":
                document = {"prompt": document["prompt"]}
            reply = self.client.post(path, document) if path.startswith("/v1/r") or "trace" in path else None
            reply = reply or self.client.get(path)
            self.statuses[reply.status] = self.statuses.get(reply.status, 0) + 1
            if self.rng.random() < 0.05:
                self.client.close()
        self.client.close()


def change(live, number):
    """Change the live index, whose old versions are deleted."""
    if number % 2:
        live.update(more_items(f"new {number % 7}", seed=number))
    else:
        live.remove([live.version.index.item_ids[int(np.flatnonzero(~live.version.removed)[0])].as_py()])
        live.add(more_items(f"more {number}", seed=number))
    live.prune(keep=3)


def test_memory_and_files_stay_flat(shop, tmp_path):
    if not Path("/proc/self/status").exists():
        pytest.skip("the test reads /proc, which this system lacks")
    path = shop.live("soak.live")
    words = [shop.model, path, "--rules", shop.rules, "--token-file", shop.token, "--follow", "--follow-seconds", 0.1]
    # On a busy machine, requests wait for long.
    words += ["--allow-where", "--beam-width", "10,50", "--deadline-ms", 60_000]
    with running(tmp_path / "log", *words, token=TOKEN) as process:
        process.wait_for("ready")
        client, pid, began = process.client, process.popen.pid, time.monotonic()
        threads = [Traffic(replace(client, keeps=True), seed, began + SECONDS) for seed in range(4)]
        for thread in threads:
            thread.start()
        live, samples, number = hr.LiveIndex.open(path), [], 0
        while any(thread.is_alive() for thread in threads):
            change(live, number)
            number += 1
            time.sleep(0.25)
            if time.monotonic() - began > WARM_SECONDS:
                samples.append((memory_of(pid), files_of(pid)))
        for thread in threads:
            thread.join()
        wait_until(lambda: client.get("/v1/index").document["version"] == live.version.number)
        statuses = [thread.statuses for thread in threads]
        assert {status for each in statuses for status in each} <= {200, 400}, statuses
        assert client.metric("hedgerow_version_refused_total") == 0
    memory, files = np.array(samples).T
    part = max(1, len(memory) // 5)
    early, late = np.median(memory[:part]) / 2**20, np.median(memory[-part:]) / 2**20
    told = (
        f"{sum(sum(each.values()) for each in statuses):,} requests, {number} changes; resident MiB {early:.1f} → "
        f"{late:.1f}, files {np.median(files[:part]):.0f} → {np.median(files[-part:]):.0f}"
    )
    print(told)
    assert late < early * 1.05 + 10, told
    assert np.median(files[-part:]) <= np.median(files[:part]) + 10, told
