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
from hedgerow.cli.common import AsJson, out, parsed_sizes, print_json, print_path, progress_bar
from hedgerow.cli.embeddings import column_named, embeddings_of, read_table
from hedgerow.errors import ArgumentError

if TYPE_CHECKING:
    import pyarrow as pa

    from hedgerow.semantic.report import SidReport


Source = Annotated[
    Path, typer.Argument(metavar="INPUT", help="Parquet, CSV, or .npy embeddings [N, D].", show_default=False)
]
Output = Annotated[
    Path,
    typer.Option("--output", "-o", help="A Parquet file: the columns of INPUT, and the SIDs.", show_default=False),
]
Embeddings = Annotated[str | None, typer.Option(metavar="COLUMN", help="The column of embeddings. Default: embedding.")]
Text = Annotated[
    list[str] | None,
    typer.Option(metavar="COLUMN", help="Embed this column of text instead; repeat to join several columns."),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="For --text: a sentence-transformers folder or hub name. Default: all-MiniLM-L6-v2, offline.",
    ),
]
Levels = Annotated[int | None, typer.Option(metavar="L", min=1, max=255, help="Codes per SID. Default: 4.")]
CodebookSizes = Annotated[str | None, typer.Option(metavar="SIZES", help="256, or per level 256,256,64. Default: 256.")]
Method = Annotated[str | None, typer.Option(metavar="NAME", help="residual, product or opq. Default: residual.")]
Deduplicate = Annotated[bool, typer.Option("--deduplicate", help="Add a last code, so that no two items share a SID.")]
DeduplicationCodes = Annotated[
    int | None, typer.Option(metavar="C", min=1, help="The codebook size of that last level; implies --deduplicate.")
]
Seed = Annotated[int | None, typer.Option(metavar="N", min=0, help="The seed of the training. Default: 0.")]
SaveQuantizer = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Save the trained quantizer: a safetensors file.")
]
LoadQuantizer = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Encode new items with this saved quantizer; train nothing.")
]
Taken = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="The existing SIDs, in an index or a Parquet file, which new items must not get (deduplication).",
    ),
]
Category = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Report how well prefixes separate these categories.")
]
SidName = Annotated[str, typer.Option(metavar="COLUMN", help="The name of the SID column, also in --taken.")]
Drop = Annotated[
    list[str] | None, typer.Option(metavar="COLUMN", help="Omit this column from the output; repeat for several.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")]


def semantic_ids(
    source: Source,
    *,
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
    quantizer: SaveQuantizer = None,
    with_quantizer: LoadQuantizer = None,
    taken: Taken = None,
    category: Category = None,
    sid: SidName = "sid",
    drop: Drop = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Create Semantic IDs of items from embeddings or texts, or encode new items with a saved quantizer."""
    settings = {"levels": levels, "codebook_sizes": parsed_sizes(codebook_sizes), "method": method, "seed": seed}
    options = {name: value for name, value in settings.items() if value is not None}
    if deduplicate or deduplication_codes is not None:
        options |= {"deduplicate": True, "deduplication_codes": deduplication_codes}
    _check_quantizer_usage(with_quantizer, options, quantizer, taken)
    _check_text_usage(text, embeddings, model)
    started = time.perf_counter()
    with _file_errors():
        _check_outputs(output, quantizer, overwrite=overwrite)
        table = read_table(source, text)
        output_table = _output_table(table, drop, sid)
        categories = None if category is None else column_named(table, category)
        taken_sids = None if taken is None else _taken_sids(taken, sid)
        trained = None if with_quantizer is None else hr.Quantizer.load(with_quantizer)
    vectors = embeddings_of(source, table, embeddings, text, model)
    with progress_bar(enabled=not as_json) as progress:
        if trained is None:
            ids = hr.semantic_ids(vectors, **options, progress=progress)
        else:
            ids = trained.assign(vectors, taken=taken_sids)
        progress("report", 0, 1)
        report = ids.report(categories)
        _write(ids, output_table, sid, output, quantizer)
    seconds = time.perf_counter() - started
    if as_json:
        facts = {"path": str(output), "quantizer": None if quantizer is None else str(quantizer), "seconds": seconds}
        facts |= {"codebook_sizes": ids.codebook_sizes, "method": ids.quantizer.method}
        print_json(report.to_dict() | facts)
        return
    _print_report(ids, report, output, sid, seconds)
    if trained is not None and trained.deduplication_codes is not None and taken is None:
        message = "Only the SIDs of these items differ from one another; --taken names the SIDs of other items."
        out.print(message, soft_wrap=True)


def _check_quantizer_usage(
    with_quantizer: Path | None, options: dict[str, Any], quantizer: Path | None, taken: Path | None
) -> None:
    """Check that options of the training are not combined with a trained quantizer."""
    if with_quantizer is not None and (options or quantizer is not None):
        raise typer.BadParameter(
            "a saved quantizer has fixed levels, codebooks, method and deduplication: omit --levels, --codebook-sizes, "
            "--method, --seed, --deduplicate, --deduplication-codes and --quantizer",
            param_hint="--with-quantizer",
        )
    if taken is not None and with_quantizer is None:
        raise typer.BadParameter("needs --with-quantizer: a new quantizer has no existing SIDs", param_hint="--taken")


def _check_text_usage(text: list[str] | None, embeddings: str | None, model: str | None) -> None:
    """Check that --text, --embeddings and --model fit each other."""
    if text and embeddings is not None:
        raise typer.BadParameter("cannot be combined with --embeddings", param_hint="--text")
    if model is not None and not text:
        raise typer.BadParameter("needs --text: the model embeds these columns", param_hint="--model")


@contextmanager
def _file_errors() -> Iterator[None]:
    """Convert errors of the file system to one line: a name that is too long, a folder without permission."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise
        raise ArgumentError(f"{error.filename} cannot be read or written: {error.strerror}.") from None


def _check_outputs(output: Path, quantizer: Path | None, *, overwrite: bool) -> None:
    """Check that the files can be written, before any work is done.

    Raises:
        ArgumentError: a file cannot be written.
        QuantizerFileError: --quantizer names a file that is not a quantizer.
    """
    if output.suffix != ".parquet":
        raise ArgumentError(f"{output}: the output is a Parquet file, so its name must end in .parquet.")
    if quantizer is not None and quantizer.resolve() == output.resolve():
        raise ArgumentError(f"{output}: the output and the quantizer need different files.")
    for path in filter(None, (output, quantizer)):
        folder = path.resolve().parent
        if path.is_dir():
            raise ArgumentError(f"{path} is a folder; pass the path of a file.")
        if path.exists() and not overwrite:
            raise ArgumentError(f"{path} exists already. Choose another path, or pass --overwrite.")
        if not folder.is_dir():
            raise ArgumentError(f"{path} cannot be written: there is no folder {path.parent}. Create it first.")
        if not os.access(folder, os.W_OK):
            raise ArgumentError(f"{path} cannot be written: no permission for folder {path.parent}. Choose another.")
    if quantizer is not None:
        from hedgerow.semantic.files import check_replaceable

        check_replaceable(quantizer)


def _output_table(table: pa.Table | None, drop: list[str] | None, sid: str) -> pa.Table | None:
    """The columns of INPUT that are written to the output.

    Raises:
        ArgumentError: a column of INPUT has the name of the SID column.
        CatalogError: a column of `drop` does not exist.
    """
    for name in drop or ():
        column_named(table, name)
    output_table = None if table is None else table.drop_columns(drop or [])
    if output_table is not None and sid in output_table.column_names:
        raise ArgumentError(f"INPUT has a column {sid!r}. Choose another name with --sid, or remove it: --drop {sid}.")
    return output_table


def _taken_sids(path: Path, sid: str) -> Any:
    """The SIDs of a saved index or of a Parquet file."""
    if path.suffix != ".parquet":
        return hr.load_index(path, mmap=True)
    from hedgerow.catalog.columns import sids_of_lists

    return sids_of_lists(column_named(read_table(path), sid), sid)


def _write(ids: hr.SemanticIds, output_table: pa.Table | None, sid: str, output: Path, quantizer: Path | None) -> None:
    """Write the rows and the quantizer: both or neither.

    Raises:
        ArgumentError: a file cannot be written.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from hedgerow.semantic.files import content_of, write_whole

    starts = np.arange(len(ids) + 1) * ids.sids.shape[1]
    column = pa.LargeListArray.from_arrays(pa.array(starts), pa.array(ids.sids.reshape(-1)))
    column = column.cast(pa.list_(pa.int32())) if starts[-1] < 2**31 else column
    rows = pa.table({sid: column}) if output_table is None else output_table.append_column(sid, column)
    files = {output: lambda file: pq.write_table(rows, file, compression="zstd")}
    if quantizer is not None:
        content = content_of(ids.quantizer)
        files[quantizer] = lambda file: file.write(content)
    try:
        write_whole(files)
    except (OSError, pa.ArrowException) as error:
        names = " and ".join(map(str, files))
        raise ArgumentError(f"{names} cannot be written: {getattr(error, 'strerror', None) or error}.") from None


def _print_report(ids: hr.SemanticIds, report: SidReport, output: Path, sid: str, seconds: float) -> None:
    out.print(report.table())
    out.print(report.collisions(), soft_wrap=True, highlight=False)
    print_path(output, f"{report.items:,} items, {report.sids:,} SIDs")
    sizes = ",".join(map(str, ids.codebook_sizes))
    command = f"hedgerow build {output} -o {output.with_suffix('.hedgerow')} --sid {sid} --codebook-sizes {sizes}"
    out.print(f"[dim]{seconds:.1f} s. Next: {escape(command)}[/]", soft_wrap=True, highlight=False)
