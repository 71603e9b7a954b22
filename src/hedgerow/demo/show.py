"""The demo's report, as tables."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hedgerow.demo.run import Answer, Named, Report


def show_demo(report: Report, console: Console) -> None:
    """Prints the report: for each prompt two tables, then sizes and times."""
    for answer in report.answers:
        console.rule(f"[bold]{escape(answer.prompt)}")
        _show_free(answer, console)
        _show_films(answer, console)
    _show_totals(report, console)


def _show_free(answer: Answer, console: Console) -> None:
    table = _table("Unconstrained: what the model names when it may name anything", ["SID", "names", "score"])
    for rank, named in enumerate(answer.free, 1):
        table.add_row(str(rank), "-".join(map(str, named.sid)), _name_of(named), f"{named.score:.2f}")
    console.print(table)
    console.print(f"  {answer.free_without_film} of its {answer.beams} beams name no film.\n")


def _name_of(named: Named) -> str:
    if named.films == 0:
        return "[red]no such film[/]"
    others = f" [dim]and {named.films - 1} more[/]" if named.films > 1 else ""
    return escape(str(named.title)) + others


def _show_films(answer: Answer, console: Console) -> None:
    """One column a rule: what each is shown, in its own order."""
    table = _table("Constrained to the catalog: four rules over one index, in one batch", list(answer.films))
    for rank, row in enumerate(zip_longest(*answer.films.values()), 1):
        table.add_row(str(rank), *("" if film is None else _film(film) for film in row))
    console.print(table)
    for rule, films in answer.films.items():
        if not films:
            console.print(f"  {escape(rule)}: no film of the catalog may be shown; they are of 1940 to 2014.")
    console.print()


def _film(film: dict[str, Any]) -> str:
    year = f" [dim]{film['year']}[/]" if film["year"] else ""
    return escape(str(film["title"])) + year


def _table(title: str, headings: list[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold cyan", box=None, padding=(0, 1), expand=True)
    table.add_column("", justify="right", style="dim")
    for heading in headings:
        number = heading in ("year", "score")
        # Words take another line where the terminal is narrow; numbers do not.
        table.add_column(
            heading,
            justify="right" if number else "left",
            no_wrap=number,
            overflow="fold",
            min_width=5 if number else None,
            ratio=None if number else 1,
        )
    return table


def _show_totals(report: Report, console: Console) -> None:
    beams = sum(answer.beams for answer in report.answers)
    invented = sum(answer.free_without_film for answer in report.answers)
    wrong = sum(answer.constrained_without_film for answer in report.answers)
    console.rule("[bold]In all")
    console.print(f"unconstrained: [red]{invented} of {beams}[/] SIDs name no film; constrained: [green]{wrong}[/].")
    console.print(
        f"{report.index.num_items:,} films, {report.index.num_sids:,} SIDs; index {report.index.nbytes / 1e6:.2f} MB; "
        f"model {report.parameters / 1e6:.1f} M parameters"
    )
    for items in report.sets.values():
        if items is None:
            continue
        console.print(f"set {escape(items.name)!r}: {items.num_items:,} films, {items.nbytes / 1e3:.1f} kB")
    console.print(", ".join(f"{what} {spent:.2f} s" for what, spent in report.seconds.items()))
    for what in ("free", "constrained", "four rules"):
        spent = sorted(answer.milliseconds[what] for answer in report.answers)
        console.print(f"{what + ' search':>20}: median {spent[len(spent) // 2]:.0f} ms a prompt, model included")
