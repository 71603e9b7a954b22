"""The command-line application. Frameworks are imported inside the command that needs them."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import Annotated

import typer

import hedgerow as hr
from hedgerow.cli.bench import bench, plan
from hedgerow.cli.build import build
from hedgerow.cli.common import print_error
from hedgerow.cli.demo import demo
from hedgerow.cli.evaluate import evaluate
from hedgerow.cli.explain import explain
from hedgerow.cli.filter import filter_index
from hedgerow.cli.inspect import inspect, verify
from hedgerow.cli.live import diff, live
from hedgerow.cli.logs import LogLevel, log_to_console
from hedgerow.cli.retrieve import retrieve
from hedgerow.cli.semantic_ids import semantic_ids
from hedgerow.cli.serve import serve
from hedgerow.cli.train import train
from hedgerow.cli.warm_up import warm_up
from hedgerow.errors import HedgerowError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Constrained decoding for generative retrieval: build, check and search the index of a catalog.",
    epilog="Exit codes: 0 success, 1 bad input or a damaged index (one line on stderr), 2 wrong usage.",
)
COMMANDS = {
    "build": (build, "build items.parquet -o items.hedgerow --sid sid --item-id asin"),
    "inspect": (inspect, "inspect items.hedgerow --where 'year >= 2000' --where 'year < 1960'"),
    "verify": (verify, "verify items.hedgerow"),
    "filter": (filter_index, "filter items.hedgerow --where 'year >= 2000' -o recent.hedgerow"),
    "diff": (diff, "diff old.hedgerow new.hedgerow"),
    "retrieve": (retrieve, "retrieve --model DIR --index items.hedgerow -p 'Recommend me a western'"),
    "explain": (explain, "explain -p 'Recommend me a western' --item title=Shane"),
    "semantic-ids": (
        semantic_ids,
        "semantic-ids items.parquet -o sids.parquet --text title --quantizer items.safetensors",
    ),
    "train": (train, "train items.hedgerow clicks.parquet -o model --quantizer items.safetensors"),
    "evaluate": (evaluate, "evaluate model items.hedgerow clicks.parquet --text title --blend model,item-knn,text-knn"),
    "serve": (serve, "serve DIR items.live --follow --rules rules.toml"),
    "warm-up": (warm_up, "warm-up --model DIR --index items.hedgerow --compile"),
    "demo": (demo, "demo --prompt 'Recommend me a western'"),
    "plan": (plan, "plan --items 20e6 --levels 8 --codebook-sizes 2048"),
}
for name, (command, example) in COMMANDS.items():
    # These commands name --prompt in their message about other words.
    settings = {"allow_extra_args": command in (retrieve, explain)}
    app.command(name, epilog=f"Example: hedgerow {example}", context_settings=settings)(command)
app.add_typer(live, name="live")
app.add_typer(bench, name="bench")


def _print_version(*, wanted: bool) -> None:
    if wanted:
        print(f"hedgerow {hr.__version__}")
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    log_level: Annotated[
        LogLevel | None,
        typer.Option("--log-level", case_sensitive=False, help="Log to stderr what is built, loaded and chosen."),
    ] = None,
) -> None:
    """The options before the command."""
    if log_level is not None:
        log_to_console(log_level)


def main() -> None:
    """Run the command line. Bad input prints one line on stderr and exits with code 1, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        # Print characters that the terminal lacks as escapes instead of failing.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except HedgerowError as error:
        print_error(str(error))
        sys.exit(1)
    except BrokenPipeError:
        # The reader of the pipe, for example `head`, has closed it.
        sys.stderr.close()
        sys.exit(1)
