"""Rows of measurements and their files: one CSV and one JSON file per benchmark, each with its conditions."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, Any]
# These conditions are in every line of a CSV file.
STAMP = ("commit", "date", "cpu", "cores", "gpu")


@dataclass(frozen=True)
class Report:
    """The results of a benchmark.

    Attributes:
        name: name of the benchmark.
        conditions: machine, versions, backend, device and budget.
        rows: one row per method and scope.
        skipped: (case, method, reason) for each method that was not run.
    """

    name: str
    conditions: Mapping[str, Any]
    rows: Sequence[Row]
    skipped: Sequence[tuple[str, str, str]] = field(default=())

    @property
    def stem(self) -> str:
        """The file name without suffix: benchmark, backend and device."""
        parts = [self.name, *(str(self.conditions[key]) for key in ("backend", "device") if key in self.conditions)]
        # A quick run must not replace a full one.
        return "-".join(parts + ["quick"] * bool(self.conditions.get("quick"))).replace(":", "")

    def save(self, folder: Path) -> list[Path]:
        """Write `<stem>.csv` and `<stem>.json` and return their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        table, document = folder / f"{self.stem}.csv", folder / f"{self.stem}.json"
        stamp = {key: self.conditions.get(key) for key in STAMP}
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(file, [*columns, *stamp], lineterminator="\n")
            writer.writeheader()
            writer.writerows({key: _short(value) for key, value in row.items()} | stamp for row in self.rows)
        skipped = [dict(zip(("case", "method", "why"), entry, strict=True)) for entry in self.skipped]
        content = {"benchmark": self.name, "conditions": self.conditions, "rows": self.rows, "skipped": skipped}
        document.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        return [table, document]


def _short(value: Any) -> Any:
    """A float as text with six digits, more than the precision of a time."""
    return f"{value:.6g}" if isinstance(value, float) else value
