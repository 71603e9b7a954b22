"""`hedgerow serve`: the retrieval service."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import hedgerow as hr
from hedgerow.cli.common import is_live, let_threads_sleep, whole_numbers
from hedgerow.cli.search import check_model
from hedgerow.errors import ArgumentError, MissingDependencyError

if TYPE_CHECKING:
    from hedgerow.hf import Retriever
    from hedgerow.serve.rules import Rule

FILMS = "films"
FILM_RULES = {"recent": "year >= 2000", "classic": "year < 1960", "french": "list_contains(countries, 'France')"}


def serve(
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
    beam_width: Annotated[
        str,
        typer.Option(metavar="N,N", help="Beam widths to warm up: the default first. The largest is the maximum."),
    ] = "50",
    max_batch: Annotated[int, typer.Option(metavar="N", min=1, help="The largest number of requests in a batch.")] = 32,
    max_wait_ms: Annotated[
        float, typer.Option(metavar="MS", min=0, help="Milliseconds that a batch waits for more requests.")
    ] = 2.0,
    queue: Annotated[
        int, typer.Option(metavar="N", min=1, help="Requests that wait at most; further ones get status 429.")
    ] = 256,
    deadline_ms: Annotated[
        float,
        typer.Option(metavar="MS", min=1, help="A request that waits longer gets status 504, unless it sets its own."),
    ] = 1000.0,
    prompt_tokens: Annotated[
        int, typer.Option(metavar="N", min=1, help="The largest number of tokens of a prompt.")
    ] = 512,
    follow: Annotated[bool, typer.Option("--follow", help="Serve new versions of a live index.")] = False,
    follow_seconds: Annotated[
        float, typer.Option(metavar="S", min=0.01, help="Seconds between two looks at the live index.")
    ] = 1.0,
    drain_seconds: Annotated[
        float,
        typer.Option(metavar="S", min=0, help="After SIGTERM, answer for so long, but say that it is not ready."),
    ] = 0.0,
    canary: Annotated[
        str | None,
        typer.Option(metavar="SHARE:VERSION", help="Let a version answer a share of the requests: 0.05:7."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A file of bearer tokens, one per line. Required to roll back."),
    ] = None,
    open_metrics: Annotated[bool, typer.Option("--open-metrics", help="/metrics needs no token.")] = False,
    allow_where: Annotated[
        bool, typer.Option("--allow-where", help="Allow SQL expressions in requests, within limits.")
    ] = False,
    log_prompts: Annotated[bool, typer.Option("--log-prompts", help="Write prompts into the log.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Log no line for each request.")] = False,
    normalize: Annotated[
        str | None, typer.Option(metavar="NAME", help="As for retrieve: codes, vocab or allowed.")
    ] = None,
    temperature: Annotated[
        float, typer.Option(metavar="T", help="Divides the logits before they are normalized.")
    ] = 1.0,
    tokens: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help="The tokens of codes: '<s_{level}_{code}>'. Default: detected."),
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="The PyTorch device. Default: cpu.")] = None,
    dtype: Annotated[str, typer.Option(metavar="NAME", help="float32, bfloat16 or float16.")] = "float32",
    prefix: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Text that many prompts begin with; it is computed once.")
    ] = None,
    otel: Annotated[bool, typer.Option("--otel", help="Send traces with OpenTelemetry, as OTEL_* say.")] = False,
    cuda_graphs: Annotated[bool, typer.Option("--cuda-graphs", help="Capture searches in CUDA graphs.")] = False,
    compile_layers: Annotated[
        bool, typer.Option("--compile", help="Compile the model's layers; on a CPU, this needs g++.")
    ] = False,
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
        from hedgerow.serve.settings import Limits, Settings
        from hedgerow.serve.web import Web
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "hedgerow":
            raise
        raise MissingDependencyError.of("hedgerow serve", error.name.partition(".")[0], "serve") from error
    live = index is not None and is_live(index)
    if (follow or canary) and not live:
        raise ArgumentError("--follow and --canary need a live index: hedgerow live init shop.live items.hedgerow.")
    share, version = _canary(canary)
    widths = whole_numbers(beam_width, "--beam-width")
    if min(widths) < 1:
        raise typer.BadParameter(f"expected integers of at least 1; got {beam_width!r}", param_hint="--beam-width")
    settings = Settings(
        beam_widths=tuple(sorted(set(widths))),
        default_beam_width=widths[0],
        max_batch=max_batch,
        max_wait_ms=max_wait_ms,
        queue=queue,
        deadline_ms=deadline_ms,
        allow_where=allow_where,
        canary_share=share,
        drain_seconds=drain_seconds,
        follow_seconds=follow_seconds if follow else None,
        limits=replace(Limits(), prompt_tokens=prompt_tokens),
    )
    bearer_tokens = () if token_file is None else _tokens(token_file)
    options: dict[str, Any] = {
        "normalize": normalize,
        "temperature": temperature,
        "pattern": tokens,
        "device": device,
        "dtype": dtype,
        "prefix": prefix,
        "cuda_graphs": cuda_graphs,
        "compile": compile_layers,
    }

    def opened() -> tuple[Retriever, hr.LiveIndex | None]:
        return _open(model, index, options)

    source = Source(
        opened,
        model=name or (FILMS if model is None else Path(model).name or model),
        index=FILMS if index is None else index.resolve().name,
        rules=_rules(rules, index),
        canary=version,
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


def _canary(text: str | None) -> tuple[float, int | None]:
    """Parse --canary: the share and the version."""
    if text is None:
        return 0.0, None
    share, _, version = text.partition(":")
    try:
        parsed = float(share), int(version)
    except ValueError:
        parsed = -1.0, 0
    if not (0 < parsed[0] <= 1 and parsed[1] >= 1):
        message = f"expected SHARE:VERSION, for example 0.05:7; got {text!r}"
        raise typer.BadParameter(message, param_hint="--canary")
    return parsed


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
