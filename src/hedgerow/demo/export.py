"""export_shop(): the films as the files of a shop, for the tutorial: films, new films, and histories of users."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv

from hedgerow.demo.films import DATA
from hedgerow.errors import ArgumentError
from hedgerow.semantic.files import write_whole

FILES = ("films.csv", "new.csv", "histories.csv")
LATEST, PER_DECADE = 2014, 100
COLUMNS = ("item_id", "title", "year", "director", "reviews")


def export_shop(folder: Path, *, overwrite: bool = False) -> dict[Path, int]:
    """Write three CSV files: films.csv, new.csv with the films of 2014, and histories.csv with synthetic histories.

    The films are, of each decade from 1960 on, the 100 with the most reviews. examples/films/histories.py in the
    repository made the histories, and describes the method.

    Args:
        folder: the folder to write to, which is created.
        overwrite: replace existing files.

    Returns:
        The number of rows of each file.

    Raises:
        ArgumentError: a file exists, or the folder cannot be written.
    """
    existing = [folder / name for name in FILES if (folder / name).exists()]
    if existing and not overwrite:
        raise ArgumentError(f"{existing[0]} exists already. Choose another folder, or pass --overwrite.")
    films = _films()
    is_new = pc.equal(films["year"], LATEST)  # pyright: ignore[reportAttributeAccessIssue]
    histories = pq.read_table(DATA / "histories.parquet")
    tables = dict(zip(FILES, (films.filter(pc.invert(is_new)), films.filter(is_new), histories), strict=True))  # pyright: ignore[reportAttributeAccessIssue]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole({folder / name: partial(csv.write_csv, table) for name, table in tables.items()})
    except OSError as error:
        raise ArgumentError(f"{folder} cannot be written: {error}") from None
    return {folder / name: len(table) for name, table in tables.items()}


def _films() -> pa.Table:
    """The 600 films, by id, with lists as text and the decade."""
    rows = [film for film in pq.read_table(DATA / "films.parquet").to_pylist() if film["genres"] and film["countries"]]
    rows = sorted(
        (film for film in rows if film["director"] and film["reviews"]),
        key=lambda film: (-film["reviews"], film["item_id"]),
    )
    chosen = []
    for decade in np.arange(1960, LATEST + 1, 10).tolist():
        for film in [film for film in rows if film["year"] // 10 * 10 == decade][:PER_DECADE]:
            row = {name: film[name] for name in COLUMNS}
            row |= {name: ", ".join(film[name]) for name in ("genres", "countries")}
            chosen.append(row | {"decade": f"{decade}s"})
    return pa.Table.from_pylist(sorted(chosen, key=lambda film: film["item_id"]))
