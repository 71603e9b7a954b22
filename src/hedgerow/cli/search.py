"""What `hedgerow retrieve` and `hedgerow explain` share: options, the retriever, the rules, and the text of items."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import hedgerow as hr
from hedgerow.cli.common import AsJson, err, let_threads_sleep, names_of
from hedgerow.errors import ArgumentError, ConstraintError
from hedgerow.index.lookup import hint_on_row_numbers
from hedgerow.picking import DIRECTIONS
from hedgerow.request_documents import RequestOptions, request_of

if TYPE_CHECKING:
    from hedgerow.hf import Retriever

# The latest items of a history that a title names, and the types of columns of names.
SHOWN, TEXT = 5, ("string", "large_string")


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """The options of a search. Each field is an option or an argument of the command line."""

    model_folder: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="The same as --model.", show_default=False),
    ] = None
    index_folder: Annotated[
        Path | None, typer.Argument(metavar="INDEX", help="The same as --index.", show_default=False)
    ] = None
    model: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="A causal model: a folder or a hub name. Default: the model of the films demo."
        ),
    ] = None
    index: Annotated[
        Path | None,
        typer.Option(metavar="INDEX", help="A saved index or a live index. Default: the films of the demo."),
    ] = None
    beam_width: Annotated[int, typer.Option(metavar="N", min=1, help="Number of beams per prompt.")] = 50
    k: Annotated[int, typer.Option("-k", metavar="N", min=1, help="Number of items per prompt.")] = 10
    fill: Annotated[
        bool, typer.Option("--fill", help="Search with more beams for prompts with fewer than -k items.")
    ] = False
    normalize: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The codes over which probabilities are normalized: codes, vocab or allowed. Default: what "
            "tokens.json of the model says, otherwise codes.",
        ),
    ] = None
    temperature: Annotated[float, typer.Option(metavar="T", help="Divides the logits before they are normalized.")] = (
        1.0
    )
    where: Annotated[
        str | None, typer.Option(metavar="SQL", help="Return only items for which this is true: 'year >= 2000'.")
    ] = None
    history: Annotated[
        str | None,
        typer.Option(
            metavar="IDS", help="In place of a prompt: the items that a user has seen, oldest first: id,id. Excluded."
        ),
    ] = None
    repeat: Annotated[bool, typer.Option("--repeat", help="Do not exclude the items of a history.")] = False
    exclude: Annotated[str | None, typer.Option(metavar="IDS", help="Exclude the items with these ids: id,id.")] = None
    candidates: Annotated[str | None, typer.Option(metavar="IDS", help="Return only items with these ids: id,id.")] = (
        None
    )
    caps: Annotated[
        str | None,
        typer.Option(
            metavar="COUNTS", help="The maximum number of items with the same value of an attribute: director=1,year=3."
        ),
    ] = None
    order_by: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="The order of items that share a SID: an attribute, largest first, or price:ascending.",
        ),
    ] = None
    tokens: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN", help="The tokens of codes, for example '<s_{level}_{code}>'. Default: detected."
        ),
    ] = None
    end: Annotated[
        str | None, typer.Option(metavar="TOKEN", help="The token that ends a ragged SID, as text or as an id.")
    ] = None
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="The PyTorch device: cpu, cuda, ... Default: cpu.")
    ] = None
    dtype: Annotated[
        str, typer.Option(metavar="NAME", help="The type of the weights: float32, bfloat16 or float16.")
    ] = "float32"
    compile: Annotated[
        bool,
        typer.Option(
            "--compile", help="Compile the model's layers: 12 to 30 s at the start. On a CPU, this needs g++."
        ),
    ] = False
    as_json: AsJson = False

    def with_folders(self, words: Sequence[str]) -> SearchOptions:
        """These options, with the folders that are given as arguments.

        Args:
            words: further words of the command line, of which there should be none.

        Raises:
            BadParameter: the words are not a model and an index, or are given as options, too.
        """
        if self.model_folder is None:
            return self
        if self.index_folder is None or words:
            word = words[0] if words else self.model_folder
            raise typer.BadParameter(f"got {word!r}; pass the prompt with -p", param_hint="--prompt")
        if self.model is not None or self.index is not None:
            raise typer.BadParameter("pass folders as words or as options, not both", param_hint="--model, --index")
        return replace(self, model=self.model_folder, index=self.index_folder)

    def open_index(self) -> hr.TrieIndex | hr.Version:
        """Open the index, or the current version of a live index.

        Raises:
            ArgumentError: the model does not exist, which is checked first because it takes no time.
            HedgerowError: the index cannot be loaded.
        """
        if (self.model is None) != (self.index is None):
            raise typer.BadParameter("pass both, or neither for the films demo", param_hint="--model, --index")
        if self.model is not None:
            check_model(self.model)
        if self.index is None:
            from hedgerow.demo.films import load_catalog

            return hr.build_index(load_catalog())
        from hedgerow.live.opened import open_searched

        opened = open_searched(self.index, mmap=False)
        return opened.version if isinstance(opened, hr.LiveIndex) else opened

    def open_retriever(self, index: hr.TrieIndex | hr.Version) -> Retriever:
        """Load the model, and create the retriever. Errors as for `hedgerow.hf.loading.load_retriever`."""
        let_threads_sleep()
        with err.status("loading the model ..."):
            from hedgerow.demo.films import DATA
            from hedgerow.hf.loading import load_retriever

            retriever = load_retriever(self.model or DATA, index, **self.loading)
        if self.model is None:
            # Ids of a history can exist in another index, too.
            message = "[dim]The model and the index of the films demo answer. For your own: MODEL INDEX.[/]"
            err.print(message, soft_wrap=True, highlight=False)
        return retriever

    @property
    def loading(self) -> dict[str, Any]:
        """The options of `hedgerow.hf.loading.load_retriever`."""
        return {
            "pattern": self.tokens,
            "end": self.end,
            "device": self.device,
            "dtype": self.dtype,
            "normalize": self.normalize,
            "temperature": self.temperature,
            "compile": self.compile,
        }

    def request_options(self, index: hr.TrieIndex) -> RequestOptions:
        """The options of all requests.

        Raises:
            BadParameter: --caps is no list of counts.
            ConstraintError: an id is not of the type of the index's ids.
        """
        return RequestOptions(
            k=self.k,
            beam_width=self.beam_width,
            where=self.where,
            exclude=_listed(index, self.exclude, "--exclude"),
            candidates=None if self.candidates is None else _listed(index, self.candidates, "--candidates"),
            caps=parsed_caps(self.caps),
            order_by=parsed_order(self.order_by),
            repeat=self.repeat,
            fill=self.fill,
        )

    def request(self, retriever: Retriever, line: Mapping[str, Any]) -> hr.Request:
        """The request of a prompt or history with these options: see `request_of`."""
        return request_of(retriever, line, self.request_options(retriever.index))

    def asked(self, index: hr.TrieIndex, prompt: str | None) -> dict[str, Any]:
        """The line of a prompt or of --history.

        Raises:
            BadParameter: there is neither or both.
            ConstraintError: an id of the history is not of the type of the index's ids.
        """
        if (prompt is None) == (self.history is None):
            given = "neither" if prompt is None else "both"
            raise typer.BadParameter(f"pass a prompt or a history; got {given}", param_hint="--prompt, --history")
        if prompt is not None:
            return {"prompt": prompt}
        return {"history": _listed(index, self.history, "--history")}


def check_model(model: str, what: str = "--model") -> None:
    """Check that a model is a folder or has the form of a hub name, because asking a hub takes a minute.

    Raises:
        ArgumentError: it is neither.
    """
    path = Path(model).expanduser()
    is_hub_name = re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", model)
    if path.is_dir() or (is_hub_name and not path.parent.is_dir()):
        return
    problem = "is a file" if path.is_file() else "does not exist"
    raise ArgumentError(
        f"{what} {model} {problem}; pass the folder that model.save_pretrained and tokenizer.save_pretrained wrote, "
        "or the name of a model on a hub: owner/name."
    )


def text_of(value: Any) -> str:
    """Format an item id or an attribute of an item."""
    if value is None:
        return "unknown"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def title_of_history(index: hr.TrieIndex, history: Sequence[Any]) -> str:
    """The latest items of a history as text: their first attribute, or their ids."""
    latest = list(history)[-SHOWN:]
    rows = index.rows(latest).tolist()
    name = next((column.name for column in index.attributes.schema if str(column.type) in TEXT), None)
    names = latest if name is None else [index.attributes.column(name)[row].as_py() for row in rows]
    return "after " + "... " * (len(history) > SHOWN) + ", ".join(map(text_of, names))


def _listed(index: hr.TrieIndex, text: str | None, option: str) -> list[Any]:
    return [] if text is None else ids_of(index, names_of(text), option)


def parsed_caps(text: str | None) -> dict[str, int]:
    """Parse --caps: director=1,year=3.

    Raises:
        BadParameter: the text is something else.
    """
    parts = [part.rpartition("=") for part in names_of(text or "")]
    try:
        caps = {name.strip(): int(count) for name, _, count in parts}
    except ValueError:
        caps = {}
    if len(caps) < len(parts) or not all(name and count > 0 for name, count in caps.items()):
        message = f"expected attributes and counts, each attribute once: director=1,year=3; got {text!r}"
        raise typer.BadParameter(message, param_hint="--caps")
    return caps


def parsed_order(text: str | None) -> str | tuple[str, str] | None:
    """Parse --order-by: an attribute, or an attribute and a direction, price:ascending."""
    name, _, direction = (text or "").rpartition(":")
    return (name, direction) if name and direction in DIRECTIONS else text


def ids_of(index: hr.TrieIndex, texts: list[str], what: str) -> list[Any]:
    """Convert texts to the type of the index's ids.

    Args:
        index: the index.
        texts: the ids, as they are written on the command line.
        what: the option, for the message.

    Raises:
        ConstraintError: a text is no id of that type, or another way to write one: 007 among integers.
    """
    import pyarrow as pa

    from hedgerow.catalog.exact import exact_cast

    try:
        return exact_cast(pa.array(texts, pa.string()), index.item_ids.type).to_pylist()
    except pa.ArrowException as error:
        raise ConstraintError(
            f"{what} must be item ids of this index, of type {index.item_ids.type}; got {','.join(texts)!r}: {error}."
            f"{hint_on_row_numbers(index)}"
        ) from None
