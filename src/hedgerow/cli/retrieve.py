"""`hedgerow retrieve` and `hedgerow explain`: a model's prompts on the command line."""

from __future__ import annotations

import json
import re
import shlex
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

import hedgerow as hr
from hedgerow.cli.common import (
    AsJson,
    Exclude,
    Where,
    err,
    names_of,
    out,
    print_json,
    progress_bar,
    requests_progress,
    rules_of_requests,
)
from hedgerow.errors import ArgumentError, MissingDependencyError
from hedgerow.index.files import LIVE
from hedgerow.index.lookup import row_of_id

COLUMNS = 4
# Of ids that are like one that is not there: how many are named, and how many are looked at.
NAMED, MOST_COMPARED = 3, 100_000
MANY_PROMPTS = 200

ModelPath = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="DIR", help="A causal model that save_pretrained wrote; left out, the demo's films."
    ),
]
IndexOption = Annotated[
    Path | None,
    typer.Option("--index", metavar="INDEX", help="A saved index, or a live one; left out, the demo's films."),
]
Width = Annotated[int, typer.Option("--beam-width", min=1, help="Beams a prompt.")]
TopK = Annotated[int, typer.Option("-k", min=1, help="Items a prompt.")]
Normalize = Annotated[str, typer.Option(help="What probabilities are relative to: codes, vocab or allowed.")]
Pattern = Annotated[
    str | None,
    typer.Option("--tokens", help="What tokens of codes look like: '<s_{level}_{code}>'; left out, detected."),
]
End = Annotated[
    str | None,
    typer.Option("--end", metavar="TOKEN", help="The token that ends a SID where they are ragged; or its id."),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, ...; left out, the CPU.")]
DType = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
Temperature = Annotated[float, typer.Option(help="Divides the logits before they are normalized.")]


def retrieve(
    prompt: Annotated[list[str] | None, typer.Option("--prompt", "-p", help="May be given several times.")] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--input",
            metavar="FILE",
            help=r'JSON lines: "text", \[token ids], or {"prompt": either, "where": "SQL", "exclude": \[ids], ...}.',
        ),
    ] = None,
    model: ModelPath = None,
    index: IndexOption = None,
    beam_width: Width = 50,
    k: TopK = 10,
    normalize: Normalize = "codes",
    temperature: Temperature = 1.0,
    columns: Annotated[str | None, typer.Option(help="The attributes to show: title,year.")] = None,
    where: Where = None,
    exclude: Exclude = None,
    tokens: Pattern = None,
    end: End = None,
    device: Device = None,
    dtype: DType = "float32",
    as_json: AsJson = False,
) -> None:
    """Print the items that a model names for each prompt: only such as are in the index."""
    if (prompt is None) == (prompts is None):
        raise typer.BadParameter("give one or the other", param_hint="--prompt, --input")
    asked = [{"prompt": text} for text in prompt] if prompt else _read_lines(prompts)
    searched = _index_of(model, index)
    options = {"pattern": tokens, "end": end, "device": device, "dtype": dtype}
    options |= {"normalize": normalize, "temperature": temperature}
    retriever = _load(model, searched, len(asked), **options)
    shown = None if columns is None else _named_columns(retriever.index, columns)
    rules = rules_of_requests(retriever.index, asked, where, exclude)
    with progress_bar(len(asked) > 1) as progress:
        rules["progress"] = requests_progress(progress, "prompts")
        found = retriever.retrieve([request["prompt"] for request in asked], beam_width=beam_width, k=k, **rules)
    for request, results in zip(asked, found, strict=True):
        if as_json:
            print_json(request | {"items": _plain(results, shown)}, indent=None)
        else:
            out.print(_table(str(request["prompt"]), results, shown))


def explain(
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="What was asked.", show_default=False)],
    item: Annotated[
        str | None,
        typer.Option(help="The item that was missed: its id, or an attribute that only it has: title=Alien."),
    ] = None,
    model: ModelPath = None,
    index: IndexOption = None,
    beam_width: Width = 50,
    k: TopK = 10,
    normalize: Normalize = "codes",
    temperature: Temperature = 1.0,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the beam as a tree: .png, .svg or .pdf.")
    ] = None,
    where: Where = None,
    exclude: Exclude = None,
    tokens: Pattern = None,
    end: End = None,
    device: Device = None,
    dtype: DType = "float32",
    as_json: AsJson = False,
) -> None:
    """Say why an item was not returned for a prompt: where its prefix left the beam, and what it had to beat."""
    if item is None and plot is None:
        raise typer.BadParameter("ask about an item, or for a picture", param_hint="--item, --plot")
    if plot is not None and find_spec("matplotlib") is None:
        raise MissingDependencyError.of("--plot", "matplotlib", "plot")
    searched = _index_of(model, index)
    item_id = None if item is None else item_named(_trie_of(searched), item)
    options = {"pattern": tokens, "end": end, "device": device, "dtype": dtype}
    options |= {"normalize": normalize, "temperature": temperature}
    retriever = _load(model, searched, 1, **options)
    rules = rules_of_requests(retriever.index, [{}], where, exclude)
    found = None
    if item is not None:
        found = retriever.explain(prompt, item_id, beam_width=beam_width, k=k, **rules)
        if as_json:
            print_json(found.to_dict())
        else:
            out.print(escape(str(found)), soft_wrap=True)
            if found.levels:
                out.print(_levels_table(found))
    if plot is not None:
        from hedgerow.hf.plot import plot_beams

        history = retriever.trace(prompt, beam_width=beam_width, **rules)
        codes = [level.code for level in found.levels] if found else ()
        plot_beams(history, plot, title=prompt, names=_beam_names(retriever.index, history[-1]), sid=codes)
        err.print(f"wrote {escape(str(plot))}")


def item_named(index: hr.TrieIndex, text: str) -> Any:
    """Returns the id of the item that a command line names: an id, or "column=value".

    Raises:
        ArgumentError: no item, or several, have that id or value; it says which are meant, perhaps.
    """
    from hedgerow.catalog.columns import rows_equal

    column, _, value = text.partition("=")
    if column not in index.attributes.column_names or not value:
        row = row_of_id(index, text)
        if row is None:
            raise ArgumentError(f"item {text!r} is not in the index, so no prompt can return it.{_alike(index, text)}")
        return index.item_ids[row].as_py()
    ids = [index.item_ids[row].as_py() for row in rows_equal(index.attributes.column(column), value)]
    if len(ids) == 1:
        return ids[0]
    shown = f": {', '.join(map(repr, ids[:5]))}{' ...' if len(ids) > 5 else ''}. Give one of these ids" if ids else ""
    raise ArgumentError(f"{len(ids)} items have {column} {value!r}{shown}.")


def _alike(index: hr.TrieIndex, text: str) -> str:
    """Returns what may have been meant by an id that no item has: items with an attribute of that value, or ids."""
    from hedgerow.catalog.columns import rows_equal

    for column in index.attributes.column_names:
        rows = rows_equal(index.attributes.column(column), text)
        if rows:
            ids = ", ".join(repr(index.item_ids[row].as_py()) for row in rows[:NAMED])
            return f" Its {column}, perhaps: --item {shlex.quote(f'{column}={text}')}, or the id {ids}."
    known = (str(item) for item in index.item_ids.slice(0, MOST_COMPARED).to_pylist())
    close = get_close_matches(text, known, NAMED)
    return f" Ids like it are {', '.join(close)}." if close else ""


def _index_of(model: str | None, index: Path | None) -> Any:
    """Returns the index, or the version of a live one that is served; those of the demo where none is named.

    Raises:
        ArgumentError: the model is not there, which is known at once.
    """
    if (model is None) != (index is None):
        raise typer.BadParameter("give both, or neither for the demo's films", param_hint="--model, --index")
    if model is not None:
        _check_model(model)
    if index is None:
        from hedgerow.demo.films import load_catalog

        return hr.build_index(load_catalog())
    return hr.LiveIndex.open(index).version if (index / LIVE).is_file() else hr.load_index(index)


def _trie_of(searched: Any) -> hr.TrieIndex:
    return searched.index if isinstance(searched, hr.Version) else searched


def _check_model(model: str) -> None:
    """Raises ArgumentError where a model is no folder and no name of a hub: asking one takes a minute."""
    path = Path(model).expanduser()
    name = re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", model)
    if path.is_dir() or (name and not path.parent.is_dir()):
        return
    what = "is a file" if path.is_file() else "does not exist"
    raise ArgumentError(
        f"--model {model} {what}; give the folder that model.save_pretrained and tokenizer.save_pretrained wrote, or "
        "the name of a model on a hub: owner/name."
    )


def _load(model: str | None, searched: Any, prompts: int, **options: Any) -> Any:
    """Returns a retriever; the options are those of `load_retriever`."""
    with err.status("loading the model ..."):
        from hedgerow.demo.films import DATA
        from hedgerow.hf.loading import load_retriever

        # For a few prompts, loading a kernel takes longer than it saves.
        kernel = "array" if prompts < MANY_PROMPTS else "auto"
        return load_retriever(model or DATA, searched, kernel=kernel, **options)


def _read_lines(path: Path | None) -> list[dict[str, Any]]:
    assert path is not None
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"{path} cannot be read: {error}") from None
    asked = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            request = json.loads(line)
        except ValueError as error:
            raise ArgumentError(f"{path}, line {number} is not JSON: {error}") from None
        if not isinstance(request, dict):
            request = {"prompt": request}
        if not isinstance(request.get("prompt", ""), str | list):
            raise ArgumentError(
                f"{path}, line {number}: a prompt is text, or a list of token ids or of messages; got {line[:50]}."
            )
        if "prompt" not in request:
            raise ArgumentError(f"{path}, line {number} has no prompt; it has {', '.join(request) or 'nothing'}.")
        asked.append(request)
    if not asked:
        raise ArgumentError(f"{path} holds no prompt.")
    return asked


def _table(prompt: str, results: hr.Results, columns: list[str] | None) -> Table:
    names = results.attributes.column_names[:COLUMNS] if columns is None else columns
    table = Table(title=escape(prompt), title_justify="left", title_style="bold cyan", box=None, padding=(0, 1))
    table.expand = any(not _is_number(results, name) for name in names)
    table.add_column("", justify="right", style="dim")
    # Words take another line where the terminal is narrow; ids and numbers do not.
    for name in ("item_id", *names):
        words = name != "item_id" and not _is_number(results, name)
        table.add_column(name, overflow="fold" if words else "ellipsis", no_wrap=not words, ratio=1 if words else None)
    table.add_column("score", justify="right", no_wrap=True)
    for rank, row in enumerate(results.to_pylist(), 1):
        cells = (_text(row[name]) for name in ("item_id", *names))
        table.add_row(str(rank), *map(escape, cells), f"{row['score']:.2f}")
    return table


def _plain(results: hr.Results, columns: list[str] | None) -> list[dict[str, Any]]:
    rows = results.to_pylist()
    if columns is None:
        return rows
    return [{name: row[name] for name in (*columns, "item_id", "score", "sid")} for row in rows]


def _named_columns(index: hr.TrieIndex, text: str) -> list[str]:
    there, wanted = index.attributes.column_names, names_of(text)
    unknown = [name for name in wanted if name not in there]
    if unknown:
        raise ArgumentError(f"there is no attribute {unknown[0]!r}; the attributes are {', '.join(there) or 'none'}.")
    return wanted


def _is_number(results: hr.Results, column: str) -> bool:
    return str(results.attributes.schema.field(column).type).startswith(("int", "uint", "float", "double", "date"))


def _text(value: Any) -> str:
    if value is None:
        return "unknown"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _levels_table(found: Any) -> Table:
    table = Table(box=None, padding=(0, 1))
    for name in ("level", "code", "score", "rank", "candidates", "kept", "to beat"):
        table.add_column(name, justify="right")
    for at, level in enumerate(found.levels):
        rank = "-" if level.rank is None else f"{level.rank:,}"
        style = "red" if at == found.level else None
        cells = (
            str(level.code),
            f"{level.score:.3f}",
            rank,
            f"{level.candidates:,}",
            f"{level.kept}",
            f"{level.to_beat:.3f}",
        )
        table.add_row(str(at), *cells, style=style)
    return table


def _beam_names(index: hr.TrieIndex, beams: hr.Beams) -> list[str]:
    """Returns what each finished beam names: the first attribute of its first item, or the id."""
    results = index.results(beams)[0]
    firsts: dict[tuple[int, ...], str] = {}
    for row in results.to_pylist():
        shown = next(iter(results.attributes.column_names), "item_id")
        firsts.setdefault(tuple(row["sid"]), _text(row[shown]))
    return list(firsts.values())
