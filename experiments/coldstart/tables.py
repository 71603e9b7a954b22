"""The two tables of a shop, items and interactions, and what is read out of an item's text."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

# Of the categories in a text, the first that is a department. A brand never has such a name.
DEPARTMENTS = ("Skin Care", "Hair Care", "Makeup", "Tools & Accessories", "Bath & Body", "Fragrance")


@dataclass(frozen=True)
class Shop:
    """N items and what U users took, in the order of time.

    Attributes:
        ids: N item ids.
        texts: N texts: "title;price;brand;department;category;...", some parts missing.
        first_seen: float64 [N], unix seconds of an item's earliest interaction; -inf where unknown, so that it is old.
        histories: U arrays of item numbers, oldest first.
        labels: N categories, where the table has them.
    """

    ids: list[str]
    texts: list[str]
    first_seen: np.ndarray
    histories: list[np.ndarray]
    labels: list[str | None] | None = None

    @cached_property
    def categories(self) -> np.ndarray:
        """int64 [N]: items of one category, all the way down, have one number."""
        names = [category(text) for text in self.texts] if self.labels is None else [str(name) for name in self.labels]
        return np.unique(names, return_inverse=True)[1]


def category(text: str) -> str:
    """Returns the categories in a text, from the department on; nothing where there are none."""
    parts = text.split(";")
    begin = next((at for at, part in enumerate(parts) if at and part in DEPARTMENTS), len(parts))
    return ";".join(parts[begin:])


def load(folder: Path) -> Shop:
    """Reads `items.parquet` (item, text, first_ts; asin, category) and `interactions.parquet` (user, item, pos)."""
    for name in ("items.parquet", "interactions.parquet"):
        if not (folder / name).exists():
            raise SystemExit(f"{folder / name} is not there. README.md says how to make it with convert.py.")
    items = pq.read_table(folder / "items.parquet").sort_by("item")
    number = items.column("item").to_numpy()
    if not np.array_equal(number, np.arange(len(number))):
        raise SystemExit(f"{folder}: items must be numbered 0 to {len(number) - 1}, each once.")
    first = items.column("first_ts").cast(pa.float64()).fill_null(-np.inf).to_numpy()
    ids = items.column("asin" if "asin" in items.column_names else "item").cast(pa.string()).to_pylist()
    events = pq.read_table(folder / "interactions.parquet", columns=["user", "item", "pos"])
    events = events.sort_by([("user", "ascending"), ("pos", "ascending")])
    users, taken = events.column("user").to_numpy(), events.column("item").to_numpy()
    histories = np.split(taken, np.flatnonzero(np.diff(users)) + 1) if len(users) else []
    labels = items.column("category").to_pylist() if "category" in items.column_names else None
    return Shop(ids, items.column("text").to_pylist(), first, histories, labels)
