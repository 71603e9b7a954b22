"""`hedgerow build`."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

import hedgerow as hr
from hedgerow.cli.catalogs import FILES, AsText, ColumnTypes, CsvTypes, Dates, read_catalog, stored_codebook_sizes
from hedgerow.cli.common import (
    AsJson,
    IndexOutput,
    Overwrite,
    Sid,
    check_index_output,
    names_of,
    out,
    parsed_sizes,
    print_json,
    print_path,
    progress_bar,
    sid_columns,
    whole_numbers,
)
from hedgerow.cli.id_columns import id_columns
from hedgerow.cli.inspect import facts_of_index, print_collisions

# The smallest --memory, in bytes: less is a size without its unit.
MIN_MEMORY = 1_000_000
# --memory of --ray, per process.
RAY_MEMORY = "1GB"
DENSE_LEVELS = {"auto": "auto", "none": []}


def build(
    sources: Annotated[
        list[Path], typer.Argument(metavar="ITEMS", help=f"{FILES}; or .npy [N, L].", show_default=False)
    ],
    *,
    output: IndexOutput,
    sid: Sid = "sid",
    item_id: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="The column of item ids. Default: item_id, or row numbers."),
    ] = None,
    codebook_sizes: Annotated[
        str | None,
        typer.Option(
            metavar="SIZES",
            help="256, or per level 256,256,64. Default: those that semantic-ids stored, or the largest code + 1.",
        ),
    ] = None,
    attributes: Annotated[
        str | None, typer.Option(metavar="COLUMNS", help="The attributes to keep, a,b,c or ''. Default: all.")
    ] = None,
    dense_levels: Annotated[
        str, typer.Option(metavar="LEVELS", help="The levels to store as bitmaps: auto, none, or 0,1.")
    ] = "auto",
    compact: Annotated[
        bool, typer.Option("--compact", help="Pack codes and row pointers into their bits: less memory, same results.")
    ] = False,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Build on disk within this memory: 500MB or 4GB. Parquet only, without --ragged."
        ),
    ] = None,
    on_ray: Annotated[
        bool,
        typer.Option(
            "--ray",
            help="Build with the processes of the Ray cluster of RAY_ADDRESS, or of this machine, each within --memory "
            f"(default: {RAY_MEMORY}). Parquet only, without --ragged.",
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="The number of processes of --ray. Default: one per CPU."),
    ] = None,
    types: ColumnTypes = None,
    as_text: AsText = None,
    dates: Dates = None,
    ragged: Annotated[
        bool, typer.Option("--ragged", help="SIDs may have different lengths; -1 or null marks the end of a SID.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Build the index of a catalog and save it."""
    check_index_output(output, sources, overwrite=overwrite)
    is_named = dense_levels in DENSE_LEVELS
    dense = DENSE_LEVELS[dense_levels] if is_named else whole_numbers(dense_levels, "--dense-levels")
    options = {
        "sid": sid_columns(sid),
        "item_id": item_id,
        "codebook_sizes": parsed_sizes(codebook_sizes),
        "attributes": None if attributes is None else names_of(attributes),
    }
    layout = "compact" if compact else "plain"
    csv_types = CsvTypes.of(types, as_text, dates)
    stored = None if codebook_sizes is not None else stored_codebook_sizes(sources, options["sid"])
    if stored is not None:
        options["codebook_sizes"] = stored
    if workers is not None and not on_ray:
        raise typer.BadParameter("needs --ray", param_hint="--workers")
    if on_ray or memory is not None:
        _check_parquet(sources, dense_levels, "--ray" if on_ray else "--memory", ragged=ragged)
        csv_types.check_kind("parquet")
        builder = partial(_builder(workers, on_ray=on_ray), layout=layout)
        index, seconds = _build_on_disk(builder, sources, output, _bytes(memory or RAY_MEMORY), options, quiet=as_json)
    else:
        index, seconds = _build(
            sources,
            output,
            options,
            {"dense_levels": dense, "layout": layout},
            csv_types,
            ragged=ragged,
            quiet=as_json,
        )
    if as_json:
        print_json(facts_of_index(index) | {"path": str(output), "seconds": seconds})
        return
    inferred = "the largest code of each level + 1; a model with more codes needs --codebook-sizes"
    origin = "" if codebook_sizes is not None else inferred if stored is None else "stored with the SIDs"
    _print_built(index, output, seconds, origin)


def _check_parquet(sources: list[Path], dense_levels: str, option: str, *, ragged: bool) -> None:
    """Check the options that --memory and --ray exclude."""
    from hedgerow.catalog.sources import kind_of

    if ragged:
        raise typer.BadParameter(f"ragged SIDs cannot be built on disk; omit {option}", param_hint="--ragged")
    if kind_of(sources) != "parquet" or dense_levels != "auto":
        raise typer.BadParameter("needs Parquet files and --dense-levels auto", param_hint=option)


def _builder(workers: int | None, *, on_ray: bool) -> Callable[..., Any]:
    """What builds within a memory limit: one process, or those of Ray."""
    if on_ray:
        import hedgerow.ray

        return partial(hedgerow.ray.build, workers=workers)
    from hedgerow.index.build_on_disk import build_to_disk

    return build_to_disk


def _build_on_disk(
    builder: Callable[..., Any], sources: list[Path], output: Path, limit: int, options: dict[str, Any], *, quiet: bool
) -> tuple[hr.TrieIndex, dict[str, float]]:
    """Build within `limit` bytes of memory. Returns the saved index, and the time in seconds."""
    started = time.perf_counter()
    with progress_bar(enabled=not quiet) as progress:
        builder([str(path) for path in sources], output, memory=limit, progress=progress, **options)
    return hr.load_index(output, mmap=True), {"build": time.perf_counter() - started}


def _build(
    sources: list[Path],
    output: Path,
    options: dict[str, Any],
    building: dict[str, Any],
    csv_types: CsvTypes,
    *,
    ragged: bool,
    quiet: bool,
) -> tuple[hr.TrieIndex, dict[str, float]]:
    """Build in memory. Returns the index, and the time of each part in seconds."""
    started = time.perf_counter()
    with progress_bar(enabled=not quiet) as progress:
        progress("read", 0, 1)
        catalog = read_catalog(sources, options, ragged=ragged, csv_types=csv_types)
        read = time.perf_counter()
        index = hr.build_index(catalog, progress=progress, **building)
        built = time.perf_counter()
        progress("save", 0, 1)
        index.save(output)
    seconds = {"read": read - started, "build": built - read, "save": time.perf_counter() - built}
    if not (catalog.has_item_ids or quiet):
        likely = next(id_columns(catalog.attributes, set()), None)
        named = "" if likely is None else f", for example --item-id {escape(likely)}"
        out.print(f"item ids: row numbers; name a column with --item-id{named}", soft_wrap=True)
    return index, seconds


def _bytes(text: str) -> int:
    """Parse a size such as 500MB or 4GB."""
    match = re.fullmatch(r"([0-9.]+) *([KMGT]?)B?", text.strip(), re.IGNORECASE)
    try:
        number, unit = match.groups() if match else ("", "")
        size = int(float(number) * 1000 ** " KMGT".index(unit.upper() or " "))
    except ValueError:
        message = f"expected a size, for example 500MB or 4GB; got {text!r}"
        raise typer.BadParameter(message, param_hint="--memory") from None
    if size < MIN_MEMORY:
        message = f"expected at least 1MB; got {text!r}, which is {size:,} bytes. Write a unit: 500MB or 4GB"
        raise typer.BadParameter(message, param_hint="--memory")
    return size


def _print_built(index: hr.TrieIndex, output: Path, seconds: dict[str, float], origin: str) -> None:
    from hedgerow.index.describe import size_of

    print_path(output, escape(repr(index)))
    sizes = ", ".join(size_of(level.codebook_size, level.end) for level in index.levels)
    out.print(f"codebook sizes: {sizes}" + f" ({origin})" * bool(origin), soft_wrap=True)
    print_collisions(index)
    times = ", ".join(f"{part} {spent:.2f} s" for part, spent in seconds.items())
    out.print(f"[dim]{times}. Next: hedgerow inspect {escape(str(output))}[/]", soft_wrap=True)
