"""`hedgerow bench` and `hedgerow plan`. Only typer is imported here; each verb imports what it needs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hedgerow.cli.common import AsJson, err, out, print_json

if TYPE_CHECKING:
    from hedgerow.bench.experiments import Options
    from hedgerow.bench.records import Report

bench = typer.Typer(
    no_args_is_help=True,
    help="Measure hedgerow beside its rivals. Every method is held to its promise before it is timed.",
)


def whole_number(text: str | int) -> int:
    """Reads 20000000, 20_000_000 and 20e6; a default comes as the number that it is."""
    try:
        number = float(str(text).replace("_", ""))
    except ValueError:
        number = -1.0
    if not (1 <= number <= 2**31 and number.is_integer()):
        raise typer.BadParameter(f"expected a positive whole number, such as 1000000 or 1e6; got {text!r}")
    return int(number)


Items = Annotated[int | None, typer.Option(parser=whole_number, metavar="N", help="Items, such as 1e6.")]
Quick = Annotated[bool, typer.Option("--quick", help="Small sizes and few repeats: under a minute.")]
Backend = Annotated[str, typer.Option(help="numpy, torch or jax.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, ...; left out, the CPU for torch.")]
Out = Annotated[Path, typer.Option("--out", help="The folder for CSV, JSON and PNG.")]
Reference = Annotated[Path | None, typer.Option(help="Folder with the authors' static_decoding, to be timed too.")]
Threads = Annotated[
    int | None, typer.Option(min=1, max=os.cpu_count(), help="Threads of PyTorch and Numba; left out, all cores.")
]
CodebookSizes = Annotated[int, typer.Option(parser=whole_number, metavar="C", help="The codebook size of every level.")]
RESULTS = Path("benchmarks/results")


@bench.command(epilog="Example: hedgerow bench paper --items 1e6 --device cpu")
def paper(
    quick: Quick = False,
    items: Items = None,
    backend: Backend = "torch",
    device: Device = None,
    out_folder: Out = RESULTS,
    reference: Reference = None,
    threads: Threads = None,
    case: Annotated[str, typer.Option(help="Another shape: cold, onerec-1x50, onerec-8x512, ...")] = "paper",
) -> None:
    """The paper's Table 1: what a constraint adds to a step."""
    from functools import partial

    from hedgerow.bench import experiments
    from hedgerow.bench.cases import CASES

    if case not in CASES:
        raise typer.BadParameter(f"expected one of {', '.join(CASES)}; got {case!r}", param_hint="--case")
    options = _options(quick, items, backend, device, reference, threads)
    _compare(partial(experiments.paper, case=CASES[case]), options, out_folder)


@bench.command(epilog="Example: hedgerow bench scale --quick")
def scale(
    quick: Quick = False,
    items: Items = None,
    backend: Backend = "torch",
    device: Device = None,
    out_folder: Out = RESULTS,
    reference: Reference = None,
    threads: Threads = None,
) -> None:
    """Table 4, first half, and figure 2: time against the number of items, up to --items."""
    from hedgerow.bench import experiments, plots

    options = _options(quick, items, backend, device, reference, threads)
    report = _compare(experiments.scale, options, out_folder, {"paper": "items"})
    title = "Time a step against the catalog's size (figure 2)"
    _drawn(plots.plot(report.rows, _png(out_folder, report), x="items", x_label="items", title=title))


@bench.command(epilog="Example: hedgerow bench branch --quick")
def branch(
    quick: Quick = False,
    items: Items = None,
    backend: Backend = "torch",
    device: Device = None,
    out_folder: Out = RESULTS,
    reference: Reference = None,
    threads: Threads = None,
) -> None:
    """Table 4, second half, and figure 4: time against the codebook's size."""
    from hedgerow.bench import experiments, plots

    options = _options(quick, items, backend, device, reference, threads)
    report = _compare(experiments.branch, options, out_folder, {"codebook": "codebook", "branch": "codebook"})
    swept = [row for row in report.rows if row["case"] == "codebook"]
    for case, rows, figure in (
        ("codebook", swept, "Table 4, second half"),
        ("branch", experiments.widest_levels(report.rows), "figure 4: two rows, the slowest level"),
    ):
        title = f"Time a step against the codebook ({figure})"
        path = _png(out_folder, report, case)
        _drawn(plots.plot(rows, path, x="codebook", x_label="codes a level", title=title))


@bench.command(epilog="Example: hedgerow bench peers --quick")
def peers(
    quick: Quick = False,
    items: Items = None,
    backend: Backend = "torch",
    device: Device = None,
    out_folder: Out = RESULTS,
    reference: Reference = None,
    threads: Threads = None,
) -> None:
    """Grammar engines, tries and Hugging Face's hook, at the sizes that they manage."""
    from hedgerow.bench import experiments

    _compare(experiments.peers, _options(quick, items, backend, device, reference, threads), out_folder)


@bench.command(name="build", epilog="Example: hedgerow bench build --items 1e7")
def build_(
    quick: Quick = False,
    items: Items = None,
    levels: Annotated[int, typer.Option(min=2, help="L.")] = 8,
    codebook_sizes: CodebookSizes = 2048,
    repeats: Annotated[int | None, typer.Option(min=1, help="Builds a method.")] = None,
    out_folder: Out = RESULTS,
    reference: Reference = None,
) -> None:
    """Build time, peak memory and bytes an item, each build in a process of its own."""
    from hedgerow.bench import building, tables

    items = items or (200_000 if quick else 10_000_000)
    with err.status("building ...") as status:
        report = building.build(
            items,
            levels,
            codebook_sizes,
            repeats=repeats or (1 if quick else 3),
            reference=reference,
            tell=status.update,
        )
    building.show(report, tables.console_for_tables())
    _saved(report, out_folder)


@bench.command(name="sets", epilog="Example: hedgerow bench sets --items 1e7")
def sets_(
    quick: Quick = False,
    items: Items = None,
    backend: Backend = "torch",
    device: Device = None,
    out_folder: Out = RESULTS,
    threads: Threads = None,
) -> None:
    """Constraint sets: from a mask to alive bits, and what sets and exclusions add to a step."""
    from dataclasses import replace

    from hedgerow.bench import sets, tables

    options = _options(quick, items, backend, device, None, threads)
    with err.status("starting ...") as status:
        report = sets.sets(replace(options, tell=status.update))
    sets.show(report, tables.console_for_tables())
    _saved(report, out_folder)


def plan(
    items: Annotated[int, typer.Option(parser=whole_number, metavar="N", help="Items, such as 20e6.")],
    levels: Annotated[int, typer.Option(min=1, max=255, help="L, the codes of a SID.")] = 8,
    codebook_sizes: CodebookSizes = 2048,
    rate: Annotated[
        Path | None, typer.Option(help="A JSON of `hedgerow bench build`, for this machine's own build time.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What an index of uniformly random SIDs will take: bytes, largest branch, build time."""
    from hedgerow.bench import planning

    planned = planning.plan(items, levels, codebook_sizes, rate_file=rate)
    if as_json:
        print_json(planned.to_dict())
    else:
        planning.show(planned, out)


def _options(quick: bool, items: int | None, backend: str, device: str | None, *rest: Any) -> Options:
    from hedgerow.bench.experiments import Options

    reference, threads = rest
    return Options(quick, items, backend, device, reference, threads)


def _compare(
    experiment: Callable[[Options], Report], options: Options, folder: Path, sweeps: dict[str, str] | None = None
) -> Report:
    from dataclasses import replace

    from hedgerow.bench import tables

    with err.status("starting ...") as status:
        report = experiment(replace(options, tell=status.update))
    console = tables.console_for_tables()
    if sweeps is None:
        tables.show_comparison(report, console)
    else:
        for case, size in sweeps.items():
            tables.show_sweep(report, case, size, console)
        tables.show_footer(report, console)
    _saved(report, folder)
    return report


def _saved(report: Report, folder: Path) -> None:
    for path in report.save(folder):
        err.print(f"[dim]wrote {path}[/]", soft_wrap=True)


def _png(folder: Path, report: Report, part: str = "") -> Path:
    return folder / f"{report.stem}{'-' + part if part else ''}.png"


def _drawn(path: Path | None) -> None:
    what = f"wrote {path}" if path else "no figure: pip install 'hedgerow\\[bench]'"
    err.print(f"[dim]{what}[/]", soft_wrap=True)
