"""Reports as rich tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hedgerow.bench.machine import read_gb_per_second
from hedgerow.bench.records import Report, Row

SIZES_PER_TABLE = 6


def console_for_tables() -> Console:
    """A console on stdout, 150 columns wide if stdout is not a terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=150)


def show_comparison(report: Report, console: Console) -> None:
    """Print one table per case, the levels of each case, the skipped methods and the conditions."""
    decodes = [row for row in report.rows if row["scope"] == "decode"]
    for case, rows in groupby(decodes, key=_case_title):
        console.print(_decode_table(case, list(rows)))
    by_level = [row for row in report.rows if row["scope"] != "decode"]
    for case, rows in groupby(by_level, key=_case_title):
        console.print(_level_table(case, list(rows)))
    show_footer(report, console)


def show_sweep(report: Report, case: str, x: str, console: Console) -> None:
    """Print milliseconds per step, and added ones, for every method and size; each table has a few sizes.

    Args:
        report: the results.
        case: the name of the case.
        x: the column of the size.
        console: where to print.
    """
    rows = [row for row in report.rows if row["case"] == case and row["scope"] == "decode"]
    sizes = sorted({row[x] for row in rows})
    for start in range(0, len(sizes), SIZES_PER_TABLE):
        part = sizes[start : start + SIZES_PER_TABLE]
        console.print(_sweep_table([row for row in rows if row[x] in part], part, case, x))


def _sweep_table(rows: Sequence[Row], sizes: Sequence[int], case: str, x: str) -> Table:
    title = f"{case}: ms per step (added to unconstrained), against {x}; {rows[0]['backend']} on {rows[0]['device']}"
    table = Table(title=title, title_justify="left", title_style="bold")
    for heading in ("method", "promise"):
        table.add_column(heading, no_wrap=True)
    for heading in ("valid", *(f"{size:,}" for size in sizes)):
        table.add_column(heading, justify="right")
    for method in dict.fromkeys(row["method"] for row in rows):
        row_of_size = {row[x]: row for row in rows if row["method"] == method}
        shares = [row["valid"] for row in row_of_size.values() if row["live"]]
        times = {
            size: f"{_digits(row['step_ms'])} ({_digits(row['added_ms_per_step'], '+')})"
            for size, row in row_of_size.items()
        }
        promise = next(iter(row_of_size.values()))["promise"]
        valid = f"{min(shares):.0%}" if shares else "none live"
        table.add_row(escape(method), promise, valid, *(times.get(size, "-") for size in sizes))
    table.add_section()
    floors = {row[x]: row["floor_bytes"] / row["levels"] / 1e3 for row in rows}
    table.add_row("logits to read per step", "", "", *(f"{floors[size]:,.1f} kB" for size in sizes))
    return table


def show_rows(title: str, headings: dict[str, str], rows: Iterable[Row], console: Console) -> None:
    """Print rows as a table: `headings` maps the key of a column to its heading."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for number, heading in enumerate(headings.values()):
        table.add_column(heading, justify="left" if number == 0 else "right", no_wrap=number == 0)
    for row in rows:
        table.add_row(*(_cell(row.get(key)) for key in headings))
    console.print(table)


def show_footer(report: Report, console: Console) -> None:
    """Print the skipped methods and the conditions of the measurement."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for case, method, why in report.skipped:
        reasons.setdefault((method, why), []).append(case)
    for (method, why), cases in reasons.items():
        where = cases[0] if len(cases) == 1 else f"{len(cases)} cases"
        console.print(f"[dim]not run: {escape(method)} at {where}: {escape(why)}[/]")
    facts = report.conditions
    threads = ", ".join(f"{name} {count}" for name, count in facts.get("threads", {}).items())
    console.print(
        f"[dim]{facts['cpu']}, {facts['cores']} cores, {facts['memory_gb']} GB"
        f"{', ' + facts['gpu'] if facts['gpu'] else ''}; load {facts['load']}; threads: {threads}; "
        f"commit {facts['commit']}[/]"
    )


def _decode_table(title: str, rows: Sequence[Row]) -> Table:
    first = rows[0]
    floor = first["floor_bytes"] / first["levels"]
    caption = f"a step must read {floor / 1e3:,.1f} kB of logits"
    if not str(first["device"]).startswith("cuda"):
        caption += f": {floor / read_gb_per_second() / 1e6:.3f} ms at the {read_gb_per_second():.0f} GB/s of one thread"
    table = Table(title=title, title_justify="left", title_style="bold", caption=caption, caption_justify="left")
    for heading in ("method", "promise"):
        table.add_column(heading, no_wrap=True)
    for heading in ("ms/step", "added", "mean ± sd", "p10", "p90", "p99", "valid", "recall", "false +", "B/item"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        per_step = {key: row[key] / row["levels"] for key in ("mean_ms", "sd_ms", "p10_ms", "p90_ms", "p99_ms")}
        table.add_row(
            escape(row["method"]),
            row["promise"],
            _digits(row["step_ms"]),
            _digits(row["added_ms_per_step"], "+") if "added_ms_per_step" in row else "",
            f"{_digits(per_step['mean_ms'])} ± {_digits(per_step['sd_ms'])}",
            *(_digits(per_step[key]) for key in ("p10_ms", "p90_ms", "p99_ms")),
            f"{row['valid']:.1%}" if row["live"] else "none live",
            f"{row['recall']:.1%}",
            "" if row["false_positives"] is None else f"{row['false_positives']:.2%}",
            "" if row["nbytes"] is None else f"{row['nbytes'] / row['items']:,.1f}",
        )
    return table


def _level_table(title: str, rows: Sequence[Row]) -> Table:
    table = Table(title=f"{title}: median ms per level", title_justify="left", title_style="bold")
    table.add_column("method", no_wrap=True)
    scopes = list(dict.fromkeys(row["scope"] for row in rows))
    for scope in scopes:
        table.add_column(scope.replace("level ", "L"), justify="right", no_wrap=True)
    for method in dict.fromkeys(row["method"] for row in rows):
        times = {row["scope"]: row["median_ms"] for row in rows if row["method"] == method}
        table.add_row(escape(method), *(_digits(times[scope]) for scope in scopes))
    return table


def _case_title(row: Row) -> str:
    return (
        f"{row['case']}: {row['items']:,} items, {row['levels']} x {row['codebook_size']:,}, "
        f"B={row['batch']}, M={row['beam_width']}, {row['backend']} on {row['device']}"
    )


def _digits(ms: float, sign: str = "") -> str:
    """A time in milliseconds to the microsecond, or to about three digits from 10 ms."""
    decimals = 3 if abs(ms) < 10 else 2 if abs(ms) < 100 else 0
    return f"{ms:{sign},.{decimals}f}"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.3g}"
    return f"{value:,}" if isinstance(value, int) else escape(str(value))
