"""The files that the scripts of the films example read and write."""

from pathlib import Path

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "src" / "hedgerow" / "demo" / "data"  # in the package
OUT = HERE / "out"  # intermediate files, not in the package

CREDITED = OUT / "films_credited.parquet"  # with cast and writers, before the SIDs
FILMS = DATA / "films.parquet"
HISTORIES = DATA / "histories.parquet"
TOKENIZER = DATA / "tokenizer.json"
RESULTS = HERE / "results.json"

SEED = 17
