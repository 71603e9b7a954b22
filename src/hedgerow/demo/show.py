"""The demo's report as tables."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hedgerow.demo.run import Answer, FreeBeam, Report


def show_demo(report: Report, console: Console) -> None:
    """Print the report: two tables per prompt, then sizes and times."""
    for answer in report.answers:
        console.rule(f"[bold]{escape(answer.prompt)}")
        _show_free(answer, console)
        _show_films(answer, console)
    _show_totals(report, console)


def _show_free(answer: Answer, console: Console) -> None:
    table = _table("Unconstrained: all combinations of codes", "SID", "film")
    table.add_column("score", justify="right", no_wrap=True, min_width=5)
    for rank, beam in enumerate(answer.free, 1):
        table.add_row(str(rank), "-".join(map(str, beam.sid)), _film_of(beam), f"{beam.score:.2f}")
    console.print(table)
    console.print(f"  {answer.free_without_film} of {answer.beams} beams match no film.\n")


def _film_of(beam: FreeBeam) -> str:
    if beam.films == 0:
        return "[red]no such film[/]"
    others = f" [dim]and {beam.films - 1} more[/]" if beam.films > 1 else ""
    return escape(str(beam.title)) + others


def _show_films(answer: Answer, console: Console) -> None:
    """Print one column per rule, each with its own ranks."""
    table = _table("Constrained to the catalog: four rules over one index, in one batch", *answer.films)
    for rank, row in enumerate(zip_longest(*answer.films.values()), 1):
        table.add_row(str(rank), *("" if film is None else _film(film) for film in row))
    console.print(table)
    for rule, films in answer.films.items():
        if not films:
            console.print(f"  {escape(rule)}: no film of the catalog matches; its films are from 1940 to 2014.")
    console.print()


def _film(film: dict[str, Any]) -> str:
    year = f" [dim]{film['year']}[/]" if film["year"] else ""
    return escape(str(film["title"])) + year


def _table(title: str, *headings: str) -> Table:
    """A table with a column of ranks, and columns of text that take several lines in a narrow terminal."""
    table = Table(title=title, title_justify="left", title_style="bold cyan", box=None, padding=(0, 1), expand=True)
    table.add_column("", justify="right", style="dim")
    for heading in headings:
        table.add_column(heading, overflow="fold", ratio=1)
    return table


def _show_totals(report: Report, console: Console) -> None:
    beams = sum(answer.beams for answer in report.answers)
    free = sum(answer.free_without_film for answer in report.answers)
    constrained = sum(answer.constrained_without_film for answer in report.answers)
    console.rule("[bold]Summary")
    console.print(
        f"SIDs that match no film: unconstrained [red]{free} of {beams}[/], constrained [green]{constrained}[/]"
    )
    console.print(
        f"{report.index.num_items:,} films, {report.index.num_sids:,} SIDs; index {report.index.nbytes / 1e6:.2f} MB; "
        f"model {report.parameters / 1e6:.1f} M parameters"
    )
    for items in report.sets.values():
        if items is not None:
            console.print(f"set {escape(items.name)!r}: {items.num_items:,} films, {items.nbytes / 1e3:.1f} kB")
    console.print("time to " + ", ".join(f"{part} {spent:.2f} s" for part, spent in report.seconds.items()))
    for search in ("free", "constrained", "four rules"):
        spent = sorted(answer.milliseconds[search] for answer in report.answers)
        name = "unconstrained" if search == "free" else search
        console.print(f"{name + ' search':>20}: median {spent[len(spent) // 2]:.0f} ms per prompt, model included")
