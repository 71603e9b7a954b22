"""`hedgerow semantic-ids`: from a file of embeddings or texts to a catalog with Semantic IDs."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

import hedgerow as hr
from hedgerow.cli.catalogs import Dates
from hedgerow.cli.common import (
    AsJson,
    Overwrite,
    check_not_input,
    let_threads_sleep,
    out,
    parsed_sizes,
    print_json,
    print_path,
    printed_warnings,
    progress_bar,
)
from hedgerow.cli.embeddings import embeddings_of
from hedgerow.cli.semantic_input import Given
from hedgerow.errors import ArgumentError

if TYPE_CHECKING:
    import pyarrow as pa

    from hedgerow.semantic.report import SidReport


Source = Annotated[
    Path,
    typer.Argument(
        metavar="INPUT",
        help="Parquet, CSV or JSON lines; a folder or a pattern; or .npy embeddings [N, D].",
        show_default=False,
    ),
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
        help="Published SIDs, in an index, a live index or a Parquet file. Its items, by id, keep theirs; new items "
        "get other SIDs.",
    ),
]
OnCollision = Annotated[
    str | None,
    typer.Option(
        metavar="WHAT",
        help="For items with the same codes: separate (--deduplicate), nearest (the nearest free last code) or keep.",
    ),
]
ItemsPerSid = Annotated[int, typer.Option(metavar="N", min=1, help="Items that may share a SID, for nearest.")]
ItemId = Annotated[str | None, typer.Option(metavar="COLUMN", help="The column of item ids. Default: item_id.")]
Category = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Report how well prefixes separate these categories.")
]
SidName = Annotated[str, typer.Option(metavar="COLUMN", help="The name of the SID column, also in --taken.")]
Drop = Annotated[
    list[str] | None, typer.Option(metavar="COLUMN", help="Omit this column from the output; repeat for several.")
]


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
    item_id: ItemId = None,
    on_collision: OnCollision = None,
    items_per_sid: ItemsPerSid = 1,
    category: Category = None,
    sid: SidName = "sid",
    drop: Drop = None,
    dates: Dates = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Create Semantic IDs of items from embeddings or texts, or encode new items with a saved quantizer."""
    let_threads_sleep()
    settings = {"levels": levels, "codebook_sizes": parsed_sizes(codebook_sizes), "method": method, "seed": seed}
    options = {name: value for name, value in settings.items() if value is not None}
    if deduplicate or deduplication_codes is not None:
        options |= {"deduplicate": True, "deduplication_codes": deduplication_codes}
    _check_quantizer_usage(with_quantizer, options, quantizer, taken)
    _check_text_usage(text, embeddings, model)
    started = time.perf_counter()
    with progress_bar(enabled=not as_json) as progress, printed_warnings():
        with _file_errors():
            _check_outputs(output, quantizer, overwrite=overwrite)
            check_not_input(output, [source, *filter(None, (taken,))])
            progress("read", 0, 1)
            columns = {"text": text, "category": category, "item_id": item_id, "sid": sid, "drop": drop, "dates": dates}
            given = Given.read(source, taken, with_quantizer, **columns)
        vectors = embeddings_of(source, given.table, embeddings, text, model, progress)
        policy = {"on_collision": on_collision, "items_per_sid": items_per_sid}
        if given.trained is None:
            ids = hr.semantic_ids(vectors, **options, **policy, progress=progress)
        else:
            progress("assign", 0, 1)
            ids = given.trained.assign(vectors, **given.published, **policy)
        progress("report", 0, 1)
        report = ids.report(given.categories)
        _write(ids, given.output_table, sid, output, quantizer, text)
    seconds = time.perf_counter() - started
    if as_json:
        facts = {"path": str(output), "quantizer": None if quantizer is None else str(quantizer), "seconds": seconds}
        facts |= {"codebook_sizes": ids.codebook_sizes, "method": ids.quantizer.method}
        print_json(report.to_dict() | facts)
        return
    _print_report(report)
    print_path(output, f"{report.items:,} items, {report.sids:,} SIDs")
    _print_next(given, ids, output, sid, f"{seconds:.1f} s", has_taken=taken is not None)


def _print_next(given: Given, ids: hr.SemanticIds, output: Path, sid: str, seconds: str, *, has_taken: bool) -> None:
    """Print what these SIDs are not distinct from, and the next command."""
    if "taken" in given.published:
        message = "All items are new: name the column of their ids with --item-id, so that published items keep SIDs."
        out.print(message, soft_wrap=True)
    if given.trained is not None and given.trained.deduplication_codes is not None and not has_taken:
        message = "Only the SIDs of these items differ from one another; --taken names the SIDs of other items."
        out.print(message, soft_wrap=True)
    if given.trained is None:
        command = _build_command(ids, output, sid, given.id_column)
    else:
        command = _live_command("update" if "keep" in given.published else "add", output, sid, given.id_column)
    out.print(f"[dim]{seconds}. Next: {escape(command)}[/]", soft_wrap=True, highlight=False)


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


def _write(
    ids: hr.SemanticIds,
    output_table: pa.Table | None,
    sid: str,
    output: Path,
    quantizer: Path | None,
    text: list[str] | None,
) -> None:
    """Write the rows and the quantizer: both or neither.

    Raises:
        ArgumentError: a file cannot be written.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from hedgerow.catalog.columns import sid_field
    from hedgerow.semantic.files import content_of, write_whole

    starts = np.arange(len(ids) + 1) * ids.sids.shape[1]
    column = pa.LargeListArray.from_arrays(pa.array(starts), pa.array(ids.sids.reshape(-1)))
    column = column.cast(pa.list_(pa.int32())) if starts[-1] < 2**31 else column
    field = sid_field(sid, column.type, ids.codebook_sizes)
    rows = pa.table([column], pa.schema([field]))
    if output_table is not None and output_table.num_columns:
        rows = output_table.append_column(field, column)
    files = {output: lambda file: pq.write_table(rows, file, compression="zstd")}
    if quantizer is not None:
        content = content_of(replace(ids.quantizer, text_columns=tuple(text) if text else None))
        files[quantizer] = lambda file: file.write(content)
    try:
        write_whole(files)
    except (OSError, pa.ArrowException) as error:
        names = " and ".join(map(str, files))
        raise ArgumentError(f"{names} cannot be written: {getattr(error, 'strerror', None) or error}.") from None


def _print_report(report: SidReport) -> None:
    out.print(report.table())
    out.print(report.collisions(), soft_wrap=True, highlight=False)


def _build_command(ids: hr.SemanticIds, output: Path, sid: str, id_name: str | None) -> str:
    sizes, index = ",".join(map(str, ids.codebook_sizes)), output.with_suffix(".hedgerow")
    words = ["hedgerow", "build", str(output), "-o", str(index), "--sid", sid]
    words += [] if id_name is None else ["--item-id", id_name]
    words += ["--overwrite"] if index.exists() else []
    return shlex.join([*words, "--codebook-sizes", sizes])


def _live_command(change: str, output: Path, sid: str, id_name: str | None) -> str:
    """The command that changes a live index, whose path is not known here: LIVE."""
    words = ["hedgerow", "live", change, "LIVE", str(output), "--sid", sid]
    return shlex.join([*words, *([] if id_name is None else ["--item-id", id_name])])
