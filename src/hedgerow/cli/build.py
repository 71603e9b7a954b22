"""`hedgerow build`."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

import hedgerow as hr
from hedgerow.cli.common import (
    AsJson,
    IndexOutput,
    Sid,
    names_of,
    out,
    parsed_sizes,
    print_json,
    print_path,
    progress_bar,
    read_npy,
    sid_columns,
    whole_numbers,
)
from hedgerow.cli.inspect import facts_of_index, print_collisions

DENSE_LEVELS = {"auto": "auto", "none": []}


def build(
    source: Annotated[
        Path, typer.Argument(metavar="ITEMS", help="Parquet, JSON (item -> codes) or .npy [N, L].", show_default=False)
    ],
    *,
    output: IndexOutput,
    sid: Sid = "sid",
    item_id: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Parquet: the column of item ids. Default: item_id, or row numbers."),
    ] = None,
    codebook_sizes: Annotated[
        str | None, typer.Option(metavar="SIZES", help="256, or per level 256,256,64. Default: the largest code + 1.")
    ] = None,
    attributes: Annotated[
        str | None, typer.Option(metavar="COLUMNS", help="Parquet: the attributes to keep, a,b,c or ''. Default: all.")
    ] = None,
    dense_levels: Annotated[
        str, typer.Option(metavar="LEVELS", help="The levels to store as bitmaps: auto, none, or 0,1.")
    ] = "auto",
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Parquet: build on disk within this memory: 500MB or 4GB.")
    ] = None,
    ragged: Annotated[
        bool, typer.Option("--ragged", help="SIDs may have different lengths; -1 or null marks the end of a SID.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Build the index of a catalog and save it."""
    is_named = dense_levels in DENSE_LEVELS
    dense = DENSE_LEVELS[dense_levels] if is_named else whole_numbers(dense_levels, "--dense-levels")
    options = {
        "sid": sid_columns(sid),
        "item_id": item_id,
        "codebook_sizes": parsed_sizes(codebook_sizes),
        "attributes": None if attributes is None else names_of(attributes),
    }
    if memory is not None:
        _check_memory(source, dense_levels, ragged=ragged)
        limit = _bytes(memory)
        index, seconds = _build_on_disk(source, output, limit, options, quiet=as_json)
    else:
        index, seconds = _build(source, output, options, dense, ragged=ragged, quiet=as_json)
    if as_json:
        print_json(facts_of_index(index) | {"path": str(output), "seconds": seconds})
        return
    _print_built(index, output, seconds, inferred=codebook_sizes is None)


def _check_memory(source: Path, dense_levels: str, *, ragged: bool) -> None:
    """Check the options that --memory excludes."""
    if ragged:
        raise typer.BadParameter("ragged SIDs cannot be built on disk; omit --memory", param_hint="--ragged")
    if source.suffix != ".parquet" or dense_levels != "auto":
        raise typer.BadParameter("needs a Parquet file and --dense-levels auto", param_hint="--memory")


def _build_on_disk(
    source: Path, output: Path, limit: int, options: dict[str, Any], *, quiet: bool
) -> tuple[hr.TrieIndex, dict[str, float]]:
    """Build within `limit` bytes of memory. Returns the saved index, and the time in seconds."""
    from hedgerow.index.build_on_disk import build_to_disk

    started = time.perf_counter()
    with progress_bar(enabled=not quiet) as progress:
        build_to_disk(source, output, memory=limit, progress=progress, **options)
    return hr.load_index(output, mmap=True), {"build": time.perf_counter() - started}


def _build(
    source: Path, output: Path, options: dict[str, Any], dense: Any, *, ragged: bool, quiet: bool
) -> tuple[hr.TrieIndex, dict[str, float]]:
    """Build in memory. Returns the index, and the time of each part in seconds."""
    started = time.perf_counter()
    with progress_bar(enabled=not quiet) as progress:
        progress("read", 0, 1)
        catalog = _read_catalog(source, options, ragged=ragged)
        read = time.perf_counter()
        index = hr.build_index(catalog, dense_levels=dense, progress=progress)
        built = time.perf_counter()
        progress("save", 0, 1)
        index.save(output)
    seconds = {"read": read - started, "build": built - read, "save": time.perf_counter() - built}
    if not (catalog.has_item_ids or quiet):
        out.print("item ids: row numbers; name a column with --item-id", soft_wrap=True)
    return index, seconds


def _read_catalog(source: Path, options: dict[str, Any], *, ragged: bool) -> hr.Catalog:
    if source.suffix == ".parquet":
        return hr.Catalog.from_parquet(source, **options, ragged=ragged)
    if options["item_id"] or options["attributes"] is not None:
        raise typer.BadParameter(f"needs a Parquet file; got {source.name}", param_hint="--item-id, --attributes")
    sizes = options["codebook_sizes"]
    if source.suffix == ".json":
        return hr.Catalog.from_json(source, codebook_sizes=sizes, ragged=ragged)
    if source.suffix == ".npy":
        return hr.Catalog(read_npy(source), codebook_sizes=sizes, ragged=ragged)
    raise hr.CatalogError(f"{source}: expected a file that ends in .parquet, .json or .npy; got {source.suffix!r}.")


def _bytes(text: str) -> int:
    """Parse a size such as 500MB or 4GB."""
    match = re.fullmatch(r"([0-9.]+) *([KMGT]?)B?", text.strip(), re.IGNORECASE)
    try:
        number, unit = match.groups() if match else ("", "")
        return int(float(number) * 1000 ** " KMGT".index(unit.upper() or " "))
    except ValueError:
        message = f"expected a size, for example 500MB or 4GB; got {text!r}"
        raise typer.BadParameter(message, param_hint="--memory") from None


def _print_built(index: hr.TrieIndex, output: Path, seconds: dict[str, float], *, inferred: bool) -> None:
    from hedgerow.index.describe import size_of

    print_path(output, escape(repr(index)))
    sizes = ", ".join(size_of(level.codebook_size, level.end) for level in index.levels)
    rule = " (the largest code of each level + 1; a model with more codes needs --codebook-sizes)" if inferred else ""
    out.print(f"codebook sizes: {sizes}{rule}", soft_wrap=True)
    print_collisions(index)
    times = ", ".join(f"{part} {spent:.2f} s" for part, spent in seconds.items())
    out.print(f"[dim]{times}. Next: hedgerow inspect {escape(str(output))}[/]", soft_wrap=True)
