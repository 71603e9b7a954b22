"""Rows of measurements, and their files: one CSV and one JSON a benchmark, each with its conditions."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, Any]
# In every line of a CSV, so that a line says by itself what it was measured on.
STAMP = ("commit", "date", "cpu", "cores", "gpu")


@dataclass(frozen=True)
class Report:
    """What a benchmark found.

    Attributes:
        name: of the benchmark.
        conditions: machine, versions, backend, device, budget.
        rows: one a method and scope.
        skipped: (case, method, why) of what was not run.
    """

    name: str
    conditions: Mapping[str, Any]
    rows: Sequence[Row]
    skipped: Sequence[tuple[str, str, str]] = field(default=())

    @property
    def stem(self) -> str:
        """The files' name: benchmark, backend and device."""
        parts = [self.name, *(str(self.conditions[key]) for key in ("backend", "device") if key in self.conditions)]
        # A quick run must not replace a full one.
        return "-".join(parts + ["quick"] * bool(self.conditions.get("quick"))).replace(":", "")

    def save(self, folder: Path) -> list[Path]:
        """Writes `<stem>.csv` and `<stem>.json` and returns their paths."""
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
    """Six digits of a time are more than a clock gives."""
    return f"{value:.6g}" if isinstance(value, float) else value
