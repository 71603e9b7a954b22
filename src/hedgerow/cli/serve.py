"""`hedgerow serve`: the retrieval service."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import hedgerow as hr
from hedgerow.cli.common import is_live, let_threads_sleep, shared_options
from hedgerow.cli.search import check_model
from hedgerow.cli.service_options import ServiceOptions
from hedgerow.errors import ArgumentError, MissingDependencyError

if TYPE_CHECKING:
    from hedgerow.hf import Retriever
    from hedgerow.serve.rules import Rule

FILMS = "films"
FILM_RULES = {"recent": "year >= 2000", "classic": "year < 1960", "french": "list_contains(countries, 'France')"}


@shared_options(ServiceOptions)
def serve(
    options: ServiceOptions,
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="A causal model: a folder or a hub name. Default: the films demo."),
    ] = None,
    index: Annotated[
        Path | None, typer.Argument(metavar="INDEX", help="A saved index or a live index.", show_default=False)
    ] = None,
    *,
    host: Annotated[str, typer.Option(help="The address to listen on. 0.0.0.0: all networks.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", help="The port. 0: a free one.")] = 8000,
    name: Annotated[str | None, typer.Option(help="The name of the model for clients. Default: its folder.")] = None,
    rules: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help='Named sets: a TOML file with \\[sets], and in it new = "year >= 2000".'),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A file of bearer tokens, one per line. Required to roll back."),
    ] = None,
    open_metrics: Annotated[bool, typer.Option("--open-metrics", help="/metrics needs no token.")] = False,
    log_prompts: Annotated[bool, typer.Option("--log-prompts", help="Write prompts into the log.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Log no line for each request.")] = False,
    otel: Annotated[bool, typer.Option("--otel", help="Send traces with OpenTelemetry, as OTEL_* say.")] = False,
) -> None:
    """Serve a model and an index over HTTP: items with scores, rules per request, metrics, and a page at /ui."""
    if (model is None) != (index is None):
        raise typer.BadParameter("pass both, or neither for the films demo", param_hint="MODEL, INDEX")
    if model is not None:
        check_model(model, "MODEL")
    let_threads_sleep()
    try:
        from hedgerow.serve.server import Address, run
        from hedgerow.serve.service import Service, Source
        from hedgerow.serve.web import Web
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "hedgerow":
            raise
        raise MissingDependencyError.of("hedgerow serve", error.name.partition(".")[0], "serve") from error
    live = index is not None and is_live(index)
    if (options.follow or options.canary) and not live:
        raise ArgumentError("--follow and --canary need a live index: hedgerow live init shop.live items.hedgerow.")
    settings = options.settings
    bearer_tokens = () if token_file is None else _tokens(token_file)

    def opened() -> tuple[Retriever, hr.LiveIndex | None]:
        return _open(model, index, options.loading)

    source = Source(
        opened,
        model=name or (FILMS if model is None else Path(model).name or model),
        index=FILMS if index is None else index.resolve().name,
        rules=_rules(rules, index),
        canary=options.canary_version,
    )
    service = Service(source, settings)
    web = Web(service, bearer_tokens, open_metrics=open_metrics, logs_prompts=log_prompts, logs_requests=not quiet)
    run(web, Address(host, port), otel=otel)


def _open(model: str | None, index: Path | None, options: dict[str, Any]) -> tuple[Retriever, hr.LiveIndex | None]:
    """The retriever, and the live index if the index is live. Errors as for `load_retriever` and `load_index`."""
    from hedgerow.demo.films import DATA, load_catalog
    from hedgerow.hf.loading import load_retriever
    from hedgerow.live.opened import open_searched
    from hedgerow.serve.settings import HEADROOM

    if index is None:
        return load_retriever(DATA, hr.build_index(load_catalog()), **options), None
    searched = open_searched(index, headroom=HEADROOM)
    retriever = load_retriever(model or DATA, searched, **options)
    return retriever, searched if isinstance(searched, hr.LiveIndex) else None


def _rules(path: Path | None, index: Path | None) -> dict[str, Rule]:
    from hedgerow.serve.rules import Rule, read_rules

    if path is not None:
        return read_rules(path)
    return {name: Rule(text, where=text) for name, text in FILM_RULES.items()} if index is None else {}


def _tokens(path: Path) -> tuple[str, ...]:
    """The tokens of --token-file.

    Raises:
        ArgumentError: the file cannot be read, or a line is no token of at least 16 characters.
    """
    try:
        tokens = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"--token-file {path} cannot be read: {error}") from None
    tokens = tuple(filter(None, map(str.strip, tokens)))
    if not tokens or not all(len(token) >= 16 and re.fullmatch("[!-~]+", token) for token in tokens):
        raise ArgumentError(
            f"--token-file {path} must hold tokens of at least 16 printable ASCII characters without spaces, one per "
            "line. Make one with: openssl rand -hex 32"
        )
    return tokens
