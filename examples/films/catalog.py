"""Clean the source database and write one row per film: `out/films_credited.parquet`."""

import re
import sqlite3
from collections.abc import Callable, Iterable
from datetime import date
from importlib.resources import as_file, files
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from paths import CREDITED

QUERY = """
SELECT o.ID, o.Title, o.Released, o.Year, o.Genre, o.Director, o.Country, o.Language, o.Runtime, o.Rating,
       o.Oscars, t.Meter, t.Reviews, t.BoxOffice, o.imdbID, o.Writer, o."Cast"
FROM omdb AS o JOIN tomatoes AS t USING (ID)
ORDER BY o.ID
"""

# Names that the source uses for the same language.
LANGUAGES = {
    "American English": "English",
    "British English": "English",
    "Standard Chinese": "Mandarin",
    "Putonghua": "Mandarin",
    "Standard Taiwanese Mandarin": "Mandarin",
    "Yue Chinese": "Cantonese",
    "Modern Greek": "Greek",
    "Kurdish language": "Kurdish",
}
COUNTRIES = {
    "People's Republic of China": "China",
    "British Hong Kong": "Hong Kong",
    "Kingdom of the Netherlands": "Netherlands",
}
DISAMBIGUATION = re.compile(r" \((?:\d{4} )?(?:\w+ )?film\)$")


def names(text: str | None, aliases: dict[str, str] | None = None) -> list[str]:
    """Parse a comma-separated list: the names in the order of the source, without duplicates."""
    parts = re.split(r",\s+(?!Jr\b)", text or "")
    return list(dict.fromkeys((aliases or {}).get(part, part) for part in map(str.strip, parts) if part))


def released(text: str) -> date | None:
    """The release date; None for 1 January, which the source uses if only the year is known."""
    day = date.fromisoformat(text)
    return None if (day.month, day.day) == (1, 1) else day


def whole(value: float | None) -> int | None:
    return None if value is None else round(value)


Cell = Callable[[Any], Any]
COLUMNS: list[tuple[str, pa.DataType, Cell]] = [
    ("item_id", pa.int64(), int),
    ("title", pa.string(), lambda title: DISAMBIGUATION.sub("", title.strip())),
    ("released", pa.date32(), released),
    ("year", pa.int16(), int),
    ("genres", pa.list_(pa.string()), lambda text: [genre.lower() for genre in names(text)]),
    ("director", pa.string(), lambda text: ", ".join(names(text)) or None),
    ("countries", pa.list_(pa.string()), lambda text: names(text, COUNTRIES)),
    ("languages", pa.list_(pa.string()), lambda text: names(text, LANGUAGES)),
    ("runtime", pa.int16(), whole),
    ("rating", pa.string(), lambda text: text or None),
    ("oscars", pa.int16(), int),
    ("tomatometer", pa.int16(), whole),
    ("reviews", pa.int16(), whole),
    ("box_office", pa.int64(), whole),
    ("imdb_id", pa.string(), lambda text: text or None),
    ("writers", pa.list_(pa.string()), names),
    ("cast", pa.list_(pa.string()), names),
]


def films_table(rows: Iterable[tuple[Any, ...]]) -> pa.Table:
    """The cleaned films, with the columns of `COLUMNS`."""
    cells = zip(*rows, strict=True)
    return pa.table(
        {
            name: pa.array([clean(cell) for cell in column], kind)
            for (name, kind, clean), column in zip(COLUMNS, cells, strict=True)
        }
    )


def main() -> None:
    source = files("bokeh_sampledata") / "_data" / "movies.db"
    with as_file(source) as path, sqlite3.connect(path) as database:
        films = films_table(database.execute(QUERY))
    CREDITED.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(films, CREDITED, compression="zstd")
    undated = films["released"].null_count
    print(f"{films.num_rows:,} films, {undated:,} without a release date -> {CREDITED.name}")


if __name__ == "__main__":
    main()
