"""Where the films' scripts read and write."""

from pathlib import Path

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "src" / "hedgerow" / "demo" / "data"  # shipped with the package
OUT = HERE / "out"  # intermediate, not shipped

CREDITED = OUT / "films_credited.parquet"  # with cast and writers, before the SIDs
FILMS = DATA / "films.parquet"
TOKENIZER = DATA / "tokenizer.json"
RESULTS = HERE / "results.json"

SEED = 17
