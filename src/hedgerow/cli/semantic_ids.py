"""`hedgerow semantic-ids`: from a file of embeddings or texts to a catalog with Semantic IDs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

import hedgerow as hr
from hedgerow.cli.common import AsJson, err, out, parsed_sizes, print_json, progress_bar, read_npy
from hedgerow.errors import ArgumentError, CatalogError

if TYPE_CHECKING:
    import pyarrow as pa

    from hedgerow.semantic.report import SidReport

EXAMPLE = "hedgerow semantic-ids items.parquet -o sids.parquet --text title --quantizer items.safetensors"
EMBEDDING = "embedding"
# No row of a CSV file may be longer: 64 MB.
CSV_BLOCK = 1 << 26

Source = Annotated[
    Path,
    typer.Argument(metavar="INPUT", help="Parquet, CSV, or .npy embeddings [N, D].", show_default=False),
]
Output = Annotated[
    Path, typer.Option("--output", "-o", help="Parquet: the columns of INPUT, and sid.", show_default=False)
]
Embeddings = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="The column of embeddings; left out, embedding.")
]
Text = Annotated[
    list[str] | None,
    typer.Option(metavar="COLUMN", help="Embed this column of text; several are joined. In place of --embeddings."),
]
Model = Annotated[
    str | None,
    typer.Option(help="For --text: a sentence-transformers folder or hub name; left out, all-MiniLM-L6-v2, offline."),
]
Levels = Annotated[int | None, typer.Option(min=1, max=255, help="Codes of a SID; left out, 4.")]
CodebookSizes = Annotated[str | None, typer.Option(metavar="SIZES", help="256, or per level 256,256,64. Default: 256.")]
Method = Annotated[str | None, typer.Option(help="residual (as left out), product or opq.")]
Deduplicate = Annotated[bool, typer.Option("--deduplicate", help="Add a last code, so that no two items share a SID.")]
DeduplicationCodes = Annotated[
    int | None, typer.Option(min=1, help="The codebook size of that last level; implies --deduplicate.")
]
Seed = Annotated[int | None, typer.Option(min=0, help="Of the training; left out, 0.")]
SaveTo = Annotated[
    Path | None, typer.Option("--quantizer", metavar="FILE", help="Save what was trained: a safetensors file.")
]
LoadFrom = Annotated[
    Path | None, typer.Option("--with-quantizer", metavar="FILE", help="Train nothing: encode new items with this one.")
]
Taken = Annotated[
    Path | None,
    typer.Option(metavar="INDEX|PARQUET", help="The SIDs that are taken, which new items are separated from."),
]
Category = Annotated[str | None, typer.Option(metavar="COLUMN", help="Report how pure prefixes are against this.")]
Sid = Annotated[str, typer.Option(metavar="COLUMN", help="What the column of SIDs is called, in --taken too.")]
Drop = Annotated[list[str] | None, typer.Option(metavar="COLUMN", help="Leave this column out of the output.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")]


def semantic_ids(
    source: Source,
    output: Output,
    embeddings: Embeddings = None,
    text: Text = None,
    model: Model = None,
    levels: Levels = None,
    codebook_sizes: CodebookSizes = None,
    method: Method = None,
    deduplicate: Deduplicate = False,
    deduplication_codes: DeduplicationCodes = None,
    seed: Seed = None,
    quantizer: SaveTo = None,
    with_quantizer: LoadFrom = None,
    taken: Taken = None,
    category: Category = None,
    sid: Sid = "sid",
    drop: Drop = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Make Semantic IDs of items from their embeddings or texts, or encode new items as the first ones were."""
    given = {"levels": levels, "codebook_sizes": parsed_sizes(codebook_sizes), "method": method, "seed": seed}
    options = {name: value for name, value in given.items() if value is not None}
    if deduplicate or deduplication_codes is not None:
        options |= {"deduplicate": True, "deduplication_codes": deduplication_codes}
    _check_usage(with_quantizer, options, quantizer, taken, text, embeddings, model)
    started = time.perf_counter()
    with _named():
        _check_free(output, quantizer, overwrite)
        table = _read(source, text)
        kept = _kept(table, drop, sid)
        categories = None if category is None else _column(table, category)
        others = None if taken is None else _taken(taken, sid)
        trained = None if with_quantizer is None else hr.Quantizer.load(with_quantizer)
    vectors = _vectors(source, table, embeddings, text, model)
    with progress_bar(not as_json) as progress:
        if trained is None:
            found = hr.semantic_ids(vectors, **options, progress=progress)
        else:
            found = trained.assign(vectors, taken=others)
        progress("report", 0, 1)
        report = found.report(categories)
        _write(found, kept, sid, output, quantizer)
    seconds = time.perf_counter() - started
    if as_json:
        facts = {"path": str(output), "quantizer": None if quantizer is None else str(quantizer), "seconds": seconds}
        facts |= {"codebook_sizes": found.codebook_sizes, "method": found.quantizer.method}
        print_json(report.to_dict() | facts)
        return
    alone = trained is not None and trained.deduplication_codes is not None and taken is None
    _print(found, report, output, sid, seconds, alone)


def _check_usage(
    with_quantizer: Path | None,
    options: dict[str, Any],
    quantizer: Path | None,
    taken: Path | None,
    text: list[str] | None,
    embeddings: str | None,
    model: str | None,
) -> None:
    if with_quantizer is not None and (options or quantizer is not None):
        raise typer.BadParameter(
            "a saved quantizer has its levels, codebooks, method and separation: omit --levels, --codebook-sizes, "
            "--method, --seed, --deduplicate, --deduplication-codes and --quantizer",
            param_hint="--with-quantizer",
        )
    if taken is not None and with_quantizer is None:
        raise typer.BadParameter("goes with --with-quantizer: SIDs made anew have nothing taken", param_hint="--taken")
    if text and embeddings is not None:
        raise typer.BadParameter("takes the place of --embeddings; give one of them", param_hint="--text")
    if model is not None and not text:
        raise typer.BadParameter("goes with --text, which it embeds", param_hint="--model")


@contextmanager
def _named() -> Iterator[None]:
    """Makes errors of files one line: a name that is too long, a folder that may not be read."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise
        raise ArgumentError(f"{error.filename} cannot be read or written: {error.strerror}.") from None


def _check_free(output: Path, quantizer: Path | None, overwrite: bool) -> None:
    """Checks, before any work is done, that the files can be written."""
    if output.suffix != ".parquet":
        raise ArgumentError(f"{output}: the output is Parquet, and its name ends in .parquet.")
    if quantizer is not None and quantizer.resolve() == output.resolve():
        raise ArgumentError(f"{output}: the quantizer needs a file of its own.")
    for path in filter(None, (output, quantizer)):
        if path.is_dir():
            raise ArgumentError(f"{path} is a folder; give the path of a file.")
        if path.exists() and not overwrite:
            raise ArgumentError(f"{path} is there already. Choose another path, or give --overwrite.")
        if not path.resolve().parent.is_dir():
            raise ArgumentError(f"{path}: there is no folder {path.parent}. Make it first.")
        if not os.access(path.resolve().parent, os.W_OK):
            raise ArgumentError(f"{path} cannot be written: the folder {path.parent} may not be. Choose another one.")
    if quantizer is not None:
        from hedgerow.semantic.files import check_replaceable

        check_replaceable(quantizer)


def _read(source: Path, text: list[str] | None = None) -> pa.Table | None:
    """Returns the rows of INPUT; None for .npy, which has no columns. Columns of `text` stay text."""
    if not source.is_file():
        raise CatalogError(f"{source} {'is a folder' if source.is_dir() else 'does not exist'}.")
    if source.suffix == ".npy":
        return None
    import pyarrow as pa

    try:
        if source.suffix == ".parquet":
            import pyarrow.parquet as pq

            # An open file: of a path, Arrow would make columns of folders that are called "year=2020".
            with open(source, "rb") as file:
                # Unlike read_table, whatever the columns are called: two of them may have one name.
                return pq.ParquetFile(file).read()
        if source.suffix == ".csv":
            return _read_csv(source, text or [])
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise CatalogError(f"{source} cannot be read: {error}") from None
    raise CatalogError(f"{source}: expected a file that ends in .parquet, .csv or .npy; got {source.suffix!r}.")


def _read_csv(source: Path, text: list[str]) -> pa.Table:
    """Returns a CSV file as text, and columns as numbers where nothing of the text is lost; what is empty is null."""
    import pyarrow as pa
    from pyarrow import csv

    read, parse = csv.ReadOptions(block_size=CSV_BLOCK), csv.ParseOptions(newlines_in_values=True)
    with csv.open_csv(source, read, parse) as opened:
        names = opened.schema.names
    convert = csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
    )
    table = csv.read_csv(source, read, parse, convert)
    columns = [
        column if name in text else _as_numbers(column)
        for name, column in zip(table.column_names, table.columns, strict=True)
    ]
    return pa.Table.from_arrays(columns, names=table.column_names)


def _as_numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns a column of text as integers or floats, where each of them is written as it stands there."""
    import pyarrow as pa

    for type_ in (pa.int64(), pa.float64()) if column.null_count < len(column) else ():
        try:
            numbers = column.cast(type_)
        except pa.ArrowInvalid:
            continue
        if numbers.cast(pa.string()).equals(column):
            return numbers
    return column


def _kept(table: pa.Table | None, drop: list[str] | None, sid: str) -> pa.Table | None:
    for name in drop or ():
        _column(table, name)
    kept = None if table is None else table.drop_columns(drop or [])
    if kept is not None and sid in kept.column_names:
        raise ArgumentError(f"INPUT has a column {sid!r}. Name another one with --sid, or leave it out: --drop {sid}.")
    return kept


def _column(table: pa.Table | None, name: str) -> pa.Array:
    from hedgerow.catalog.columns import column_of

    if table is None:
        raise ArgumentError(f"there is no column {name!r}: a .npy file has none.")
    return column_of(table, name, "input")


def _vectors(source: Path, table: pa.Table | None, embeddings: str | None, text: list[str] | None, model: Any) -> Any:
    """Returns the embeddings as they are in INPUT, or of its texts."""
    if text:
        return hr.embed_texts(_texts(table, text), model=model, progress=err.is_terminal)
    if table is not None:
        if embeddings is None and EMBEDDING not in table.column_names:
            raise ArgumentError(
                f"INPUT has no column {EMBEDDING!r}; its columns are {', '.join(table.column_names)}. Name one with "
                "--embeddings, or columns of text with --text."
            )
        return _column(table, EMBEDDING if embeddings is None else embeddings)
    if embeddings is not None:
        raise ArgumentError(f"there is no column {embeddings!r}: a .npy file has none.")
    return read_npy(source)


def _texts(table: pa.Table | None, names: list[str]) -> list[str]:
    """Returns the text of each row: its columns joined, those that are null left out."""
    columns = [_words(_column(table, name), name) for name in names]
    texts = []
    for row, parts in enumerate(zip(*columns, strict=True)):
        there = [part for part in parts if part]
        if not there:
            raise ArgumentError(f"row {row} has no text in {', '.join(names)}; drop such rows, or name more columns.")
        texts.append(". ".join(there))
    return texts


def _words(column: pa.Array, name: str) -> list[str | None]:
    """Returns a column as text: strings, numbers, or lists of them."""
    import pyarrow as pa

    from hedgerow.catalog.columns import is_list

    kind = column.type.value_type if is_list(column.type) else column.type
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise ArgumentError(f"column {name!r} must hold text to be embedded; it holds {column.type}.")
    _checked_text(column, name)
    if is_list(column.type):
        return [None if row is None else ", ".join(str(v) for v in row if v is not None) for row in column.to_pylist()]
    return column.cast(pa.string()).to_pylist()


def _checked_text(column: pa.Array, name: str) -> None:
    """Checks that strings are UTF-8, which Parquet files of other programs may not hold to."""
    import pyarrow as pa

    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        raise ArgumentError(f"column {name!r} holds text that is not UTF-8: {error}. Convert it to UTF-8.") from None


def _taken(path: Path, sid: str) -> Any:
    """Returns the SIDs of an index or of a Parquet file."""
    if path.suffix != ".parquet":
        return hr.load_index(path, mmap=True)
    from hedgerow.catalog.columns import sids_of_lists

    return sids_of_lists(_column(_read(path), sid), sid)


def _write(found: hr.SemanticIds, kept: pa.Table | None, sid: str, output: Path, quantizer: Path | None) -> None:
    """Writes the rows, and what was trained: both or neither."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from hedgerow.semantic.files import content_of, write_whole

    starts = np.arange(len(found) + 1) * found.sids.shape[1]
    column = pa.LargeListArray.from_arrays(pa.array(starts), pa.array(found.sids.reshape(-1)))
    column = column.cast(pa.list_(pa.int32())) if starts[-1] < 2**31 else column
    rows = pa.table({sid: column}) if kept is None else kept.append_column(sid, column)
    files = {output: lambda file: pq.write_table(rows, file, compression="zstd")}
    if quantizer is not None:
        content = content_of(found.quantizer)
        files[quantizer] = lambda file: file.write(content)
    try:
        write_whole(files)
    except (OSError, pa.ArrowException) as error:
        names = " and ".join(map(str, files))
        raise ArgumentError(f"{names} cannot be written: {getattr(error, 'strerror', None) or error}.") from None


def _print(found: hr.SemanticIds, report: SidReport, output: Path, sid: str, seconds: float, alone: bool) -> None:
    out.print(report.table())
    out.print(report.collisions(), soft_wrap=True, highlight=False)
    out.print(f"[bold]{escape(str(output))}[/]: {report.items:,} items, {report.sids:,} SIDs", soft_wrap=True)
    if alone:
        out.print("They are separated from one another alone; --taken names the SIDs of other items.", soft_wrap=True)
    sizes = ",".join(map(str, found.codebook_sizes))
    command = f"hedgerow build {output} -o {output.with_suffix('.hedgerow')} --sid {sid} --codebook-sizes {sizes}"
    out.print(f"[dim]{seconds:.1f} s. Then: {escape(command)}[/]", soft_wrap=True, highlight=False)
