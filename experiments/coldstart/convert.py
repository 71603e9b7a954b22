"""Make the two tables of the public Amazon Reviews 2014 files: `reviews_X_5.json.gz` and `meta_X.json.gz`.

The 5-core reviews have each user's and item's at least five; the metadata are lines of Python, not of JSON.
Source: McAuley et al., https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html. They are for research.
"""

from __future__ import annotations

import argparse
import ast
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.progress import track


def reviews(file: Path) -> pa.Table:
    """Returns reviewer, asin and timestamp of every review, in the file's order."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        found = [json.loads(line) for line in track(lines, f"reading {file.name}")]
    if not found:
        raise SystemExit(f"{file} has no reviews.")
    columns = ("reviewerID", "asin", "unixReviewTime")
    return pa.table({name: [review[name] for review in found] for name in columns})


def texts(file: Path, wanted: set[str]) -> dict[str, str]:
    """Returns "title;price;brand;department;category;..." of the items wanted, without the parts that are missing."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = (ast.literal_eval(line) for line in track(lines, f"reading {file.name}"))
        return {row["asin"]: ";".join(parts(row)) for row in rows if row["asin"] in wanted}


def parts(row: dict[str, Any]) -> Iterator[str]:
    """Yields the parts of an item's text; the first category, the name of the shop's branch, tells nothing."""
    paths = row.get("categories") or [[]]
    for part in (row.get("title"), row.get("price"), row.get("brand"), *paths[0][1:]):
        if part not in (None, ""):
            yield str(part).strip()


def tables(taken: pa.Table, text_of: dict[str, str]) -> tuple[pa.Table, pa.Table]:
    """Returns items (item, asin, text, first_ts) and interactions (user, item, pos, timestamp)."""
    asins = sorted(set(taken.column("asin").to_pylist()))
    number = {asin: item for item, asin in enumerate(asins)}
    place = pa.array(range(len(taken)))
    # Reviews have no time of day: of one day, the file's order stays.
    ordered = taken.append_column("place", place).sort_by(
        [("reviewerID", "ascending"), ("unixReviewTime", "ascending"), ("place", "ascending")]
    )
    users: dict[str, int] = {}
    user = [users.setdefault(name, len(users)) for name in ordered.column("reviewerID").to_pylist()]
    begins = [row for row, name in enumerate(user) if row == 0 or user[row - 1] != name]
    begin_of = dict(zip([user[row] for row in begins], begins, strict=True))
    times = ordered.column("unixReviewTime").to_pylist()
    item = [number[asin] for asin in ordered.column("asin").to_pylist()]
    oldest = taken.group_by("asin").aggregate([("unixReviewTime", "min")]).sort_by("asin")
    items = pa.table(
        {
            "item": pa.array(range(len(asins)), pa.int32()),
            "asin": asins,
            "text": [text_of.get(asin, "") for asin in asins],
            "first_ts": oldest.column("unixReviewTime_min").cast(pa.int64()),
        }
    )
    pos = [row - begin_of[name] for row, name in enumerate(user)]
    columns = {"user": (user, pa.int32()), "item": (item, pa.int32()), "pos": (pos, pa.int32())}
    events = {name: pa.array(values, kind) for name, (values, kind) in columns.items()}
    return items, pa.table(events | {"timestamp": pa.array(times, pa.int64())})


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reviews", type=Path, help="reviews_Beauty_5.json.gz")
    parser.add_argument("meta", type=Path, help="meta_Beauty.json.gz")
    parser.add_argument("out", type=Path, help="a folder for items.parquet and interactions.parquet")
    args = parser.parse_args()
    taken = reviews(args.reviews)
    items, interactions = tables(taken, texts(args.meta, set(taken.column("asin").to_pylist())))
    args.out.mkdir(parents=True, exist_ok=True)
    pq.write_table(items, args.out / "items.parquet", compression="zstd")
    pq.write_table(interactions, args.out / "interactions.parquet", compression="zstd")
    users = interactions.column("user")[-1].as_py() + 1
    print(f"{args.out}: {len(items):,} items, {users:,} users, {len(interactions):,} interactions")


if __name__ == "__main__":
    main()
