"""`hedgerow demo`."""

from __future__ import annotations

from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from hedgerow.cli.common import AsJson, Overwrite, err, out, print_json, print_path
from hedgerow.errors import MissingDependencyError

# The packages of the extra "demo" that the demo needs.
PACKAGES = ("torch", "transformers", "duckdb")


def demo(
    *,
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", metavar="TEXT", help="A prompt; repeat the option for several prompts."),
    ] = None,
    since: Annotated[
        int, typer.Option(metavar="YEAR", help="The year of the rule `since`: films of this year or later.")
    ] = 2000,
    beam_width: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="Number of beams per search.")] = 50,
    k: Annotated[int, typer.Option("-k", metavar="N", min=1, help="Number of films to show per rule.")] = 10,
    export: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Instead, write films.csv, new.csv and histories.csv to this folder: 600 films, and synthetic "
            "histories of 3,000 users, for the tutorial.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Run a small language model that recommends films: unconstrained, and under four rules in one batch."""
    if export is not None:
        _export(export, overwrite=overwrite)
        return
    for package in PACKAGES:
        if find_spec(package) is None:
            raise MissingDependencyError.of("hedgerow demo", package, "demo")
    from hedgerow.demo.run import run_demo
    from hedgerow.demo.show import show_demo

    status = nullcontext() if as_json else err.status("loading 17,472 films and the model, then searching ...")
    with status:
        report = run_demo(prompt or None, since=since, beam_width=beam_width, k=k)
    if as_json:
        print_json(report.to_dict())
    else:
        show_demo(report, out)


def _export(folder: Path, *, overwrite: bool) -> None:
    from hedgerow.demo.export import export_shop

    for path, rows in export_shop(folder, overwrite=overwrite).items():
        print_path(path, f"{rows:,} rows")
