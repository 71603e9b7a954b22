"""Measure `hedgerow serve`: throughput, latency, processor time per request, and switches of versions under load.

    python benchmarks/serve.py            the films and a catalog of 1M items, about 5 minutes
    python benchmarks/serve.py --quick    the films, short runs, under a minute

Each part starts the service in a process of its own, drives it, and checks every answer. The baseline is `generate`
with a prefix function behind the same server: the same queue, batches and routes.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import hedgerow as hr
from hedgerow.bench.machine import conditions
from hedgerow.bench.records import Report, Row
from hedgerow.bench.serving import Load, serving
from hedgerow.bench.tables import console_for_tables, show_footer, show_rows
from hedgerow.demo.films import DATA, load_catalog

RESULTS = Path(__file__).parent / "results"
HEADINGS = {
    "what": "what",
    "load": "load",
    "requests_per_second": "requests/s",
    "p50_ms": "p50 ms",
    "p90_ms": "p90 ms",
    "p99_ms": "p99 ms",
    "cpu_ms": "CPU ms/request",
    "refused": "refused",
    "mean_batch": "batch",
}
SWITCHES = 100
# Between two versions.
PUBLISH_SECONDS = 0.25


@dataclass(frozen=True)
class Setting:
    """The sizes of the measurements.

    Attributes:
        seconds: the length of each load.
        clients: the numbers of clients of the closed loops.
        items: the items of the large catalog; 0: it is left out.
        switches: the number of versions that are published under load.
        beam_width: M.
    """

    seconds: float = 6.0
    clients: tuple[int, ...] = (1, 32)
    items: int = 1_000_000
    switches: int = SWITCHES
    beam_width: int = 20


QUICK = Setting(seconds=3.0, clients=(1, 32), items=0, switches=5)


class Running:
    """A service in a process of its own.

    Attributes:
        url: its address.
    """

    def __init__(self, arguments: list[str]) -> None:
        self.process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
        self.url, self._lines = "", iter(self.process.stderr or ())
        for line in self._lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            self.url = event.get("url", self.url)
            if event["event"] == "ready":
                break
        else:
            raise RuntimeError("the service has ended before it was ready")
        # A full pipe would stop the service.
        threading.Thread(target=lambda: [None for _ in self._lines], daemon=True).start()

    def cpu_seconds(self) -> float:
        """The processor time of the process so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def served(*arguments: str) -> Iterator[Running]:
    """Run a service."""
    running = Running([sys.executable, *arguments])
    try:
        yield running
    finally:
        running.process.send_signal(signal.SIGTERM)
        running.process.wait(60)


def hedgerow(index: Path | None, setting: Setting, *options: str) -> list[str]:
    """The command of the service."""
    searched = [] if index is None else [str(DATA), str(index)]
    shape = ["--beam-width", str(setting.beam_width), "--port", "0", "--quiet", "--deadline-ms", "60000"]
    return ["-m", "hedgerow", "serve", *searched, *shape, *options]


def baseline(index: Path, setting: Setting) -> list[str]:
    """The command of the baseline."""
    return [str(Path(__file__).with_name("serve_generate.py")), str(index), str(setting.beam_width)]


def measured(what: str, running: Running, load: Load, index: hr.TrieIndex) -> Row:
    """Drive a service, and measure its processor time per request as well."""
    before = running.cpu_seconds()
    row = dict(serving(running.url, [load], index=lambda _: index).rows[0])
    spent = running.cpu_seconds() - before
    # The requests of the warm-up seconds cost as much, but are not counted.
    share = load.seconds / (load.seconds + load.warm_seconds)
    row = {"what": what, **row, "cpu_ms": spent * share / max(1, row["requests"]) * 1e3}
    print(*(f"{name}={row[name]}" for name in HEADINGS), file=sys.stderr, flush=True)
    return row


def in_process(name: str, index: Path, served_rows: list[Row], setting: Setting) -> Row:
    """The processor time of the same requests without HTTP and a queue, in batches as large as the served ones."""
    busiest = max((row for row in served_rows if row["mix"] == "none"), key=lambda row: row["mean_batch"])
    batch = max(1, round(busiest["mean_batch"]))
    code = Path(__file__).with_name("serve_in_process.py")
    arguments = [sys.executable, str(code), str(index), str(setting.beam_width), str(batch)]
    found = json.loads(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)
    found["served_cpu_times"] = busiest["cpu_ms"] / found["cpu_ms"]
    shape = {"load": f"batches of {batch}", "mix": "none", "beam_width": setting.beam_width}
    return {"what": f"{name}, in process", **shape, **found}


def loads_of(setting: Setting, mix: str) -> list[Load]:
    """The closed loops."""
    return [Load(clients=count, seconds=setting.seconds, mix=mix) for count in setting.clients]


def throughput(name: str, path: Path, index: hr.TrieIndex, setting: Setting) -> list[Row]:
    """Closed loops, and an open loop at 70 % of the capacity that they show."""
    rows = []
    with served(*hedgerow(path, setting, "--rules", str(path.parent / "rules.toml"))) as running:
        for mix in ("none", "mixed"):
            rows += [measured(f"{name}, rules: {mix}", running, load, index) for load in loads_of(setting, mix)]
            rate = 0.7 * max(row["requests_per_second"] for row in rows if row["mix"] == mix)
            load = Load(rate=round(rate, 1), seconds=setting.seconds, mix=mix)
            rows.append(measured(f"{name}, rules: {mix}, 70 % of capacity", running, load, index))
    return rows


def generated(name: str, path: Path, index: hr.TrieIndex, setting: Setting) -> list[Row]:
    """The baseline, under the same load."""
    with served(*baseline(path, setting)) as running:
        loads = [replace(load, beam_width=setting.beam_width) for load in loads_of(setting, "none")]
        return [measured(f"{name}, generate behind the same server", running, load, index) for load in loads]


def switching(folder: Path, setting: Setting) -> list[Row]:
    """Steady load on a live index, then the same load while versions are published."""
    index = hr.build_index(load_catalog())
    hr.LiveIndex.create(folder / "films.live", index)
    rows = []
    with served(*hedgerow(folder / "films.live", setting, "--follow", "--follow-seconds", "0.05")) as running:
        load = Load(clients=8, seconds=max(setting.seconds, setting.switches * PUBLISH_SECONDS), mix="none")
        rows.append(measured("films, live, steady", running, load, index))
        # In a process of its own, so that it does not hold up the clients.
        command = [sys.executable, __file__, "--publish", str(folder / "films.live"), str(setting.switches)]
        publisher = subprocess.Popen(command)
        rows.append(measured(f"films, live, {setting.switches} versions published", running, load, index))
        if publisher.wait(60):
            raise RuntimeError("the versions were not published")
        rows[-1]["versions"] = hr.LiveIndex.open(folder / "films.live").version.number
    return rows


def publish(folder: str, versions: str) -> None:
    """Publish versions, each without one more item, from the end of the warm-up seconds on."""
    live = hr.LiveIndex.open(folder)
    ids = live.version.index.item_ids.to_pylist()
    due = time.monotonic() + Load().warm_seconds
    for number in range(int(versions)):
        time.sleep(max(0.0, due - time.monotonic()))
        live.remove([ids[number]])
        due += PUBLISH_SECONDS


def large_index(folder: Path, items: int) -> Path:
    """The index of random SIDs, which the model of the films can name."""
    generator = np.random.default_rng(0)
    catalog = hr.Catalog(
        generator.integers(0, 256, (items, 4)),
        codebook_sizes=256,
        attributes={"year": generator.integers(1940, 2025, items)},
    )
    path = folder / "large.hedgerow"
    hr.build_index(catalog).save(path)
    return path


def main() -> None:
    """Run the measurements, print the tables and save the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--publish", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.publish:
        publish(*arguments.publish)
        return
    setting, rows = QUICK if arguments.quick else Setting(), []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "rules.toml").write_text('[sets]\nrecent = "year >= 2000"\nclassic = "year < 1960"\n')
        paths = {"films": folder / "films.hedgerow"}
        hr.build_index(load_catalog()).save(paths["films"])
        if setting.items:
            paths[f"{setting.items:,} items"] = large_index(folder, setting.items)
        for name, path in paths.items():
            index = hr.load_index(path, mmap=True)
            of_service = throughput(name, path, index, setting)
            rows += [*of_service, in_process(name, path, of_service, setting)]
            rows += generated(name, path, index, setting)
        rows += switching(folder, setting)
    report = Report("serve", conditions() | {"quick": arguments.quick, **vars(setting)}, rows)
    console = console_for_tables()
    show_rows("The service", HEADINGS, rows, console)
    show_footer(report, console)
    for path in report.save(arguments.out):
        print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
