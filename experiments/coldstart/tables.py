"""The two tables of a shop, items and interactions, and the categories in the texts of items."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

# Departments: the first category in a text. No brand has one of these names.
DEPARTMENTS = ("Skin Care", "Hair Care", "Makeup", "Tools & Accessories", "Bath & Body", "Fragrance")


@dataclass(frozen=True)
class Shop:
    """N items and the histories of users.

    Attributes:
        ids: N item ids.
        texts: N texts: "title;price;brand;department;category;..."; some parts may be missing.
        first_seen: float64 [N], Unix time in seconds of the earliest interaction with an item; -inf if unknown, so
            that the item counts as old.
        histories: for each user an array of item numbers, oldest first.
        labels: N categories; None if the table has none.
    """

    ids: list[str]
    texts: list[str]
    first_seen: np.ndarray
    histories: list[np.ndarray]
    labels: list[str | None] | None = None

    @cached_property
    def categories(self) -> np.ndarray:
        """int64 [N]: the number of the category of each item. Items of one number agree on the whole category path."""
        names = [category(text) for text in self.texts] if self.labels is None else [str(name) for name in self.labels]
        return np.unique(names, return_inverse=True)[1]


def category(text: str) -> str:
    """The categories in a text, starting with the department; an empty string if there are none."""
    parts = text.split(";")
    start = next((number for number, part in enumerate(parts) if number and part in DEPARTMENTS), len(parts))
    return ";".join(parts[start:])


def load(folder: Path) -> Shop:
    """Read `items.parquet` (item, text, first_ts; asin, category) and `interactions.parquet` (user, item, pos)."""
    for name in ("items.parquet", "interactions.parquet"):
        if not (folder / name).exists():
            raise SystemExit(f"{folder / name} does not exist. Create it with convert.py, as described in README.md.")
    items = pq.read_table(folder / "items.parquet").sort_by("item")
    number = items.column("item").to_numpy()
    if not np.array_equal(number, np.arange(len(number))):
        raise SystemExit(f"{folder}/items.parquet: column item must have each number from 0 to {len(number) - 1} once.")
    first_seen = items.column("first_ts").cast(pa.float64()).fill_null(-np.inf).to_numpy()
    ids = items.column("asin" if "asin" in items.column_names else "item").cast(pa.string()).to_pylist()
    events = pq.read_table(folder / "interactions.parquet", columns=["user", "item", "pos"])
    events = events.sort_by([("user", "ascending"), ("pos", "ascending")])
    users, event_items = events.column("user").to_numpy(), events.column("item").to_numpy()
    histories = np.split(event_items, np.flatnonzero(np.diff(users)) + 1) if len(users) else []
    labels = items.column("category").to_pylist() if "category" in items.column_names else None
    return Shop(ids, items.column("text").to_pylist(), first_seen, histories, labels)
