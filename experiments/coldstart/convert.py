"""Create the two tables from the public Amazon Reviews 2014 files `reviews_X_5.json.gz` and `meta_X.json.gz`.

In the 5-core reviews, each user and each item has at least five reviews. A line of the metadata is Python, not JSON.
Source: McAuley et al., https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html. The files are for research.
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
    """Read the reviewer, asin and timestamp of every review, in the order of the file."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in track(lines, f"reading {file.name}")]
    if not rows:
        raise SystemExit(f"{file} has no reviews.")
    columns = ("reviewerID", "asin", "unixReviewTime")
    return pa.table({name: [review[name] for review in rows] for name in columns})


def texts(file: Path, wanted: set[str]) -> dict[str, str]:
    """Read the texts of the items `wanted`: "title;price;brand;department;category;...", without missing parts."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = (ast.literal_eval(line) for line in track(lines, f"reading {file.name}"))
        return {row["asin"]: ";".join(parts(row)) for row in rows if row["asin"] in wanted}


def parts(row: dict[str, Any]) -> Iterator[str]:
    """The parts of an item's text. The first category is omitted, because it is the same for all items."""
    paths = row.get("categories") or [[]]
    for part in (row.get("title"), row.get("price"), row.get("brand"), *paths[0][1:]):
        if part not in (None, ""):
            yield str(part).strip()


def tables(taken: pa.Table, text_of: dict[str, str]) -> tuple[pa.Table, pa.Table]:
    """Build the tables items (item, asin, text, first_ts) and interactions (user, item, pos, timestamp).

    Args:
        taken: the result of `reviews`.
        text_of: the text of each asin.
    """
    asins = sorted(set(taken.column("asin").to_pylist()))
    number = {asin: item for item, asin in enumerate(asins)}
    row_numbers = pa.array(range(len(taken)))
    # Reviews have no time of day. Reviews of one day keep the order of the file.
    ordered = taken.append_column("row", row_numbers).sort_by(
        [("reviewerID", "ascending"), ("unixReviewTime", "ascending"), ("row", "ascending")]
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
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reviews", type=Path, help="reviews_Beauty_5.json.gz")
    parser.add_argument("meta", type=Path, help="meta_Beauty.json.gz")
    parser.add_argument("out", type=Path, help="folder for items.parquet and interactions.parquet")
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
