"""The command line: one verb a function. Frameworks are imported inside the verb that needs them."""

from __future__ import annotations

import re
import sys
import time
from contextlib import nullcontext
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

import hedgerow as hr
from hedgerow.cli.bench import bench, plan
from hedgerow.cli.common import (
    AsJson,
    IndexOutput,
    IndexPath,
    Sid,
    err,
    names_of,
    out,
    parsed_sizes,
    print_json,
    progress_bar,
    read_npy,
    sid_columns,
    whole_numbers,
)
from hedgerow.cli.filter import facts_of_rules, filter_index, rules_table
from hedgerow.cli.live import diff, live
from hedgerow.cli.retrieve import explain, retrieve
from hedgerow.cli.semantic_ids import EXAMPLE, semantic_ids
from hedgerow.errors import HedgerowError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Constrained decoding for generative retrieval: build, check and search the index of a catalog.",
    epilog="Exit codes: 0 success, 1 bad input or a damaged index (one line on stderr), 2 wrong usage.",
)
app.add_typer(bench, name="bench")
app.add_typer(live, name="live")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"hedgerow {hr.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """The options before the verb."""


@app.command(epilog="Example: hedgerow build items.parquet -o items.hedgerow --sid sid --item-id asin")
def build(
    source: Annotated[
        Path, typer.Argument(metavar="ITEMS", help="Parquet, JSON (item -> codes) or .npy [N, L].", show_default=False)
    ],
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
    dense_levels: Annotated[str, typer.Option(help="The levels to store as bitmaps: auto, none, or 0,1.")] = "auto",
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Parquet: build on disk within this memory: 500MB or 4GB.")
    ] = None,
    ragged: Annotated[
        bool, typer.Option("--ragged", help="SIDs may have different lengths; -1 or null marks the end of a SID.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Build the index of a catalog and save it."""
    named = {"auto": "auto", "none": []}
    dense = named[dense_levels] if dense_levels in named else whole_numbers(dense_levels, "--dense-levels")
    if memory is not None:
        if ragged:
            raise typer.BadParameter(
                "SIDs of different lengths are built in memory alone; leave out --memory", param_hint="--ragged"
            )
        _build_within(_bytes(memory), source, output, sid, item_id, codebook_sizes, attributes, dense_levels, as_json)
        return
    started = time.perf_counter()
    with progress_bar(not as_json) as progress:
        progress("read", 0, 1)
        catalog = _read_catalog(source, sid, item_id, codebook_sizes, attributes, ragged)
        read = time.perf_counter()
        index = hr.build_index(catalog, dense_levels=dense, progress=progress)
        built = time.perf_counter()
        progress("save", 0, 1)
        index.save(output)
    seconds = {"read": read - started, "build": built - read, "save": time.perf_counter() - built}
    if not catalog.has_item_ids and not as_json:
        out.print("item ids: row numbers; name a column with --item-id", soft_wrap=True)
    _print_built(index, output, seconds, codebook_sizes is None, as_json)


def _build_within(
    limit: int,
    source: Path,
    output: Path,
    sid: str,
    item_id: str | None,
    codebook_sizes: str | None,
    attributes: str | None,
    dense_levels: str,
    as_json: bool,
) -> None:
    from hedgerow.index.build_on_disk import build_to_disk

    if source.suffix != ".parquet" or dense_levels != "auto":
        raise typer.BadParameter("goes with a Parquet file, and with --dense-levels auto", param_hint="--memory")
    started = time.perf_counter()
    with progress_bar(not as_json) as progress:
        options = _parquet_options(sid, item_id, codebook_sizes, attributes)
        build_to_disk(source, output, memory=limit, progress=progress, **options)
    index = hr.load_index(output, mmap=True)
    _print_built(index, output, {"build": time.perf_counter() - started}, codebook_sizes is None, as_json)


def _print_built(index: hr.TrieIndex, output: Path, seconds: dict[str, float], inferred: bool, as_json: bool) -> None:
    if as_json:
        print_json(_facts(index) | {"path": str(output), "seconds": seconds})
        return
    from hedgerow.index.describe import size_of

    took = ", ".join(f"{what} {spent:.2f} s" for what, spent in seconds.items())
    out.print(f"[bold]{escape(str(output))}[/]: {escape(repr(index))}", soft_wrap=True)
    sizes = ", ".join(size_of(level.codebook_size, level.end) for level in index.levels)
    rule = " (the largest code of each level + 1; a model with more codes needs --codebook-sizes)" if inferred else ""
    out.print(f"codebook sizes: {sizes}{rule}", soft_wrap=True)
    _print_collisions(index)
    out.print(f"[dim]{took}. Look at it: hedgerow inspect {escape(str(output))}[/]", soft_wrap=True)


@app.command(epilog="Example: hedgerow inspect items.hedgerow --where 'year >= 2000' --where 'year < 1960'")
def inspect(
    path: IndexPath,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="SQL", help="Show what this rule leaves too; may be given several times."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what an index holds, level by level, and what rules leave of it."""
    import pyarrow.parquet as pq

    from hedgerow.index.describe import KINDS, level_table
    from hedgerow.index.files import read_manifest
    from hedgerow.index.trie import bytes_as_text

    index = hr.load_index(path, mmap=True)
    manifest = read_manifest(path)
    columns = {field.name: str(field.type) for field in pq.read_schema(path / manifest["files"]["items"]["name"])}
    if as_json:
        files = {part: entry["bytes"] for part, entry in manifest["files"].items()}
        rules = {"rules": facts_of_rules(index, where)} if where else {}
        print_json(_facts(index) | {"version": manifest["version"], "columns": columns, "file_bytes": files} | rules)
        return
    out.print(level_table(index))
    out.print(f"[dim]{KINDS}[/]", highlight=False)
    _print_collisions(index)
    named = ", ".join(f"{escape(name)} [dim]({escape(kind)})[/]" for name, kind in columns.items())
    out.print(f"columns: {named}", highlight=False)
    sizes = ", ".join(f"{part} {bytes_as_text(entry['bytes'])}" for part, entry in manifest["files"].items())
    out.print(f"on disk: {sizes} [dim](format {manifest['version']})[/]")
    if where:
        out.print(rules_table(index, where))


@app.command(epilog="Example: hedgerow verify items.hedgerow")
def verify(path: IndexPath, as_json: AsJson = False) -> None:
    """Compare every checksum and every array of an index, and walk every SID."""
    from hedgerow.index.verify import verify_trie

    try:
        with progress_bar(not as_json) as progress:
            index = hr.TrieIndex._of(verify_trie(path, progress=progress))
    except HedgerowError as error:
        if as_json:
            print_json({"valid": False, "error": str(error)})
        raise
    if as_json:
        print_json(_facts(index) | {"valid": True})
    else:
        verdict = f"[green]valid[/]: {escape(repr(index))}; every checksum, array and SID is as it should be."
        out.print(verdict, soft_wrap=True)


@app.command(epilog="Example: hedgerow demo --prompt 'Recommend me a western'")
def demo(
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", "-p", help="What to ask for; may be given several times.")
    ] = None,
    since: Annotated[int, typer.Option(help="One rule: films released in this year or later.")] = 2000,
    beam_width: Annotated[int, typer.Option(min=1, max=1000, help="Beams a search.")] = 50,
    k: Annotated[int, typer.Option("-k", min=1, help="Films to show.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Let a small language model recommend films: free, and under four rules in one batch."""
    from hedgerow.demo.run import run_demo
    from hedgerow.demo.show import show_demo

    with err.status("loading the model and 17,472 films ...") if not as_json else nullcontext():
        report = run_demo(prompt or None, since=since, beam_width=beam_width, k=k)
    if as_json:
        print_json(report.to_dict())
    else:
        show_demo(report, out)


app.command(epilog="Example: hedgerow retrieve --model DIR --index items.hedgerow -p 'Recommend me a western'")(
    retrieve
)
app.command(epilog="Example: hedgerow explain -p 'Recommend me a western' --item title=Shane")(explain)
app.command("semantic-ids", epilog=f"Example: {EXAMPLE}")(semantic_ids)
app.command("filter", epilog="Example: hedgerow filter items.hedgerow 'year >= 2000' -o recent.hedgerow")(filter_index)
app.command(epilog="Example: hedgerow diff old.hedgerow new.hedgerow")(diff)
app.command(epilog="Example: hedgerow plan --items 20e6 --levels 8 --codebook-sizes 2048")(plan)


def main() -> None:
    """Runs the command line. Bad input ends with one line on stderr and exit code 1, never with a traceback."""
    for stream in (sys.stdout, sys.stderr):
        # Print characters that the terminal lacks as escapes, rather than fail.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except HedgerowError as error:
        line = " ".join(str(error).splitlines())
        err.print(f"[bold red]hedgerow:[/] {escape(line)}", soft_wrap=True, highlight=False)
        sys.exit(1)
    except BrokenPipeError:
        # The reader of the pipe, such as `head`, has closed it.
        sys.stderr.close()
        sys.exit(1)


def _read_catalog(
    source: Path, sid: str, item_id: str | None, codebook_sizes: str | None, attributes: str | None, ragged: bool
) -> hr.Catalog:
    options = _parquet_options(sid, item_id, codebook_sizes, attributes)
    if source.suffix != ".parquet" and (item_id or attributes is not None):
        raise typer.BadParameter(
            f"goes with a Parquet file, not with {source.name}", param_hint="--item-id, --attributes"
        )
    if source.suffix == ".parquet":
        return hr.Catalog.from_parquet(source, **options, ragged=ragged)
    sizes = options["codebook_sizes"]
    if source.suffix == ".json":
        return hr.Catalog.from_json(source, codebook_sizes=sizes, ragged=ragged)
    if source.suffix == ".npy":
        return hr.Catalog(read_npy(source), codebook_sizes=sizes, ragged=ragged)
    raise hr.CatalogError(f"{source}: expected a file that ends in .parquet, .json or .npy; got {source.suffix!r}.")


def _parquet_options(
    sid: str, item_id: str | None, codebook_sizes: str | None, attributes: str | None
) -> dict[str, Any]:
    return {
        "sid": sid_columns(sid),
        "item_id": item_id,
        "codebook_sizes": parsed_sizes(codebook_sizes),
        "attributes": None if attributes is None else names_of(attributes),
    }


def _bytes(text: str) -> int:
    match = re.fullmatch(r"([0-9.]+) *([KMGT]?)B?", text.strip(), re.IGNORECASE)
    try:
        number, unit = match.groups() if match else ("", "")
        return int(float(number) * 1000 ** " KMGT".index(unit.upper() or " "))
    except ValueError:
        message = f"expected an amount of memory, as 500MB or 4GB; got {text!r}"
        raise typer.BadParameter(message, param_hint="--memory") from None


def _facts(index: hr.TrieIndex) -> dict[str, Any]:
    from hedgerow.index.describe import level_facts

    return {
        "items": index.num_items,
        "sids": index.num_sids,
        "nbytes": index.nbytes,
        "levels": level_facts(index),
    }


def _print_collisions(index: hr.TrieIndex) -> None:
    items, sids, most = index.collisions()
    if items:
        out.print(f"collisions: {items:,} items share {sids:,} SIDs, at most {most:,} one SID")
    else:
        out.print("collisions: none, every item has a SID of its own")
