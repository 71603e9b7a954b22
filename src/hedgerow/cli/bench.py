"""`hedgerow bench` and `hedgerow plan`. Only typer is imported here; each verb imports what it needs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from hedgerow.cli.common import AsJson, err, is_live, out, print_json, print_warning, shared_options, whole_numbers
from hedgerow.errors import ArgumentError, MissingDependencyError, install_command
from hedgerow.indexes import build_index, load_index
from hedgerow.live.live import LiveIndex
from hedgerow.trie_index import TrieIndex

if TYPE_CHECKING:
    from hedgerow.bench.compare import OnStatus
    from hedgerow.bench.experiments import Options
    from hedgerow.bench.records import Report

# The number of levels to plan for, if neither it nor a size per level is given.
LEVELS = 8

bench = typer.Typer(
    no_args_is_help=True,
    help="Benchmark hedgerow against other methods. The results of every method are checked before it is timed.",
)


def whole_number(text: str | int) -> int:
    """Parse an integer such as 20000000, 20_000_000 or 20e6. Typer passes a default as a number."""
    try:
        number = float(str(text).replace("_", ""))
    except ValueError:
        number = -1.0
    if not (1 <= number <= 2**31 and number.is_integer()):
        raise typer.BadParameter(f"expected an integer from 1 to 2^31, for example 1000000 or 1e6; got {text!r}")
    return int(number)


def sizes_of(text: str) -> int | list[int]:
    """Parse codebook sizes, as `hedgerow build` takes them: one for all levels, or one per level."""
    sizes = [whole_number(part) for part in text.split(",")]
    return sizes if len(sizes) > 1 else sizes[0]


Items = Annotated[int | None, typer.Option(parser=whole_number, metavar="N", help="Number of items, for example 1e6.")]
Quick = Annotated[
    bool, typer.Option("--quick", help="Use small sizes and few repeats: under a minute on an idle machine.")
]
Backend = Annotated[str, typer.Option(help="The framework: numpy, torch or jax.")]
Device = Annotated[
    str | None, typer.Option(help="The device: cpu, cuda, ... Default: the CPU for torch, the first device for jax.")
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="FOLDER", help="Write CSV, JSON and PNG files to this folder. Default: write nothing."
    ),
]
Reference = Annotated[
    Path | None, typer.Option(help="The folder of the authors' static_decoding package, to measure it as well.")
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, max=os.cpu_count(), help="Number of threads. Default: all cores."),
]


@dataclass(frozen=True, kw_only=True)
class Shared:
    """The options that the benchmarks of the step share. Each field is an option of the command line."""

    quick: Quick = False
    items: Items = None
    backend: Backend = "torch"
    device: Device = None
    out_folder: Out = None
    reference: Reference = None
    threads: Threads = None

    def options(self, on_status: OnStatus) -> Options:
        """The options of a benchmark."""
        from hedgerow.bench.experiments import Options

        return Options(self.quick, self.items, self.backend, self.device, self.reference, self.threads, on_status)


@bench.command(epilog="Example: hedgerow bench paper --items 1e6 --device cpu")
@shared_options(Shared, first=True)
def paper(
    shared: Shared,
    *,
    case: Annotated[str, typer.Option(help="Another shape: cold, onerec-1x50, onerec-8x512, ...")] = "paper",
) -> None:
    """Table 1 of the paper: the time that a constraint adds to a step."""
    from functools import partial

    from hedgerow.bench import experiments
    from hedgerow.bench.cases import CASES

    if case not in CASES:
        raise typer.BadParameter(f"expected one of {', '.join(CASES)}; got {case!r}", param_hint="--case")
    _compare(partial(experiments.paper, case=CASES[case]), shared)


@bench.command(epilog="Example: hedgerow bench scale --quick")
@shared_options(Shared, first=True)
def scale(shared: Shared) -> None:
    """Table 4, first half, and figure 2: time against the number of items, up to --items."""
    from hedgerow.bench import experiments, plots

    report = _compare(experiments.scale, shared, {"paper": "items"})
    title = "Time per step against the number of items (figure 2)"
    if shared.out_folder is not None:
        path = _png(shared.out_folder, report)
        _print_figure(plots.plot(report.rows, path, x="items", x_label="items", title=title))


@bench.command(epilog="Example: hedgerow bench branch --quick")
@shared_options(Shared, first=True)
def branch(shared: Shared) -> None:
    """Table 4, second half, and figure 4: time against the codebook size."""
    from hedgerow.bench import experiments, plots

    column = "codebook_size"
    report = _compare(experiments.branch, shared, {"codebook": column, "branch": column})
    if shared.out_folder is None:
        return
    swept = [row for row in report.rows if row["case"] == "codebook"]
    for case, rows, figure in (
        ("codebook", swept, "Table 4, second half"),
        ("branch", experiments.widest_levels(report.rows), "figure 4: two rows, the slowest level"),
    ):
        title = f"Time per step against the codebook size ({figure})"
        path = _png(shared.out_folder, report, case)
        _print_figure(plots.plot(rows, path, x=column, x_label="codebook size", title=title))


@bench.command(epilog="Example: hedgerow bench peers --quick")
@shared_options(Shared, first=True)
def peers(shared: Shared) -> None:
    """Grammar engines, tries and the prefix function of Hugging Face, at sizes that they can handle."""
    from hedgerow.bench import experiments

    _compare(experiments.peers, shared)


@bench.command(name="build", epilog="Example: hedgerow bench build --items 1e7")
def build_(
    *,
    quick: Quick = False,
    items: Items = None,
    levels: Annotated[int, typer.Option(min=2, help="Number of levels.")] = 8,
    codebook_sizes: Annotated[
        int, typer.Option(parser=whole_number, metavar="C", help="The codebook size of every level.")
    ] = 2048,
    repeats: Annotated[
        int | None, typer.Option(min=1, help="Number of builds per method. Default: 3, or 1 with --quick.")
    ] = None,
    out_folder: Out = None,
    reference: Reference = None,
) -> None:
    """Build time, peak memory and bytes per item. Each build runs in its own process."""
    from hedgerow.bench import building, tables

    items = items or (200_000 if quick else 10_000_000)
    with _measuring("building ...") as on_status:
        report = building.build(
            items,
            levels,
            codebook_sizes,
            repeats=repeats or (1 if quick else 3),
            reference=reference,
            on_status=on_status,
        )
    building.show(report, tables.console_for_tables())
    _save(report, out_folder)


@bench.command(name="first-call", epilog="Example: hedgerow bench first-call --quick")
def first_call_(
    *,
    quick: Quick = False,
    items: Items = None,
    repeats: Annotated[
        int | None, typer.Option(min=1, help="Number of processes per method. Default: 5, or 1 with --quick.")
    ] = None,
    out_folder: Out = None,
) -> None:
    """The first answer of a new process with empty caches: imports, loading, the first search and the second."""
    from hedgerow.bench import cases, first_call, tables
    from hedgerow.bench.compare import problem_of
    from hedgerow.demo import films

    with _measuring("building the indexes ...") as on_status:
        index = problem_of(cases.PAPER.of(items=items or (100_000 if quick else 1_000_000))).index
        of_films = build_index(films.load_catalog())
        repeats = repeats or (1 if quick else 5)
        report = first_call.first_call(index, of_films, films.DATA, repeats=repeats, on_status=on_status)
    first_call.show(report, tables.console_for_tables())
    _save(report, out_folder)


@bench.command(name="sets", epilog="Example: hedgerow bench sets --items 1e7")
@shared_options(Shared, omit=("reference",), first=True)
def sets_(shared: Shared) -> None:
    """Constraint sets: the time to create one from a mask, and the time that sets and exclusions add to a step."""
    from hedgerow.bench import sets, tables

    with _measuring("starting ...") as on_status:
        report = sets.sets(shared.options(on_status))
    sets.show(report, tables.console_for_tables())
    _save(report, shared.out_folder)


@bench.command(name="serve", epilog="Example: hedgerow bench serve http://127.0.0.1:8000 --clients 1,32")
def serve_(
    url: Annotated[str, typer.Argument(metavar="URL", help="The address of a running `hedgerow serve`.")],
    *,
    clients: Annotated[
        str, typer.Option(metavar="N,N", help="Numbers of clients that send a request when they have their answer.")
    ] = "1,32",
    rates: Annotated[
        str | None,
        typer.Option("--rate", metavar="R,R", help="Requests per second that arrive at random, in addition."),
    ] = None,
    seconds: Annotated[
        float, typer.Option(metavar="S", min=0.1, help="Seconds per load, after 2 s of warm-up.")
    ] = 10.0,
    beam_width: Annotated[int | None, typer.Option(metavar="N", min=1, help="Beams per request.")] = None,
    k: Annotated[int, typer.Option("-k", metavar="N", min=1, help="Items per request.")] = 10,
    mix: Annotated[
        str, typer.Option(help="Rules of the requests: none, or mixed: sets, exclusions and candidates.")
    ] = "mixed",
    prompts: Annotated[
        Path | None, typer.Option("--prompts", metavar="FILE", help="A file with a prompt per line.")
    ] = None,
    index: Annotated[
        Path | None,
        typer.Option(metavar="INDEX", help="The index that is served, to check that items exist and keep the rules."),
    ] = None,
    token_file: Annotated[Path | None, typer.Option(metavar="FILE", help="The file with the bearer token.")] = None,
    out_folder: Out = None,
) -> None:
    """Drive a running service, and check every answer. The service of the films is checked with its index."""
    try:
        from hedgerow.bench import serving
    except ModuleNotFoundError as error:
        if error.name != "aiohttp":
            raise
        raise MissingDependencyError.of("hedgerow bench serve", "aiohttp", "bench") from error
    from hedgerow.bench import tables
    from hedgerow.demo.films import load_catalog

    if mix not in serving.MIXES:
        raise typer.BadParameter(f"expected one of {', '.join(serving.MIXES)}; got {mix!r}", param_hint="--mix")
    shape = {"seconds": seconds, "k": k, "beam_width": beam_width, "mix": mix}
    loads = [serving.Load(clients=count, **shape) for count in whole_numbers(clients, "--clients")]
    loads += [serving.Load(rate=rate, **shape) for rate in whole_numbers(rates, "--rate")] if rates else []
    # Without a warning about other processes: the service is one.
    with err.status("starting ...") as status:
        report = serving.serving(
            url,
            loads,
            token=None if token_file is None else _lines(token_file, "--token-file")[0],
            prompts=serving.PROMPTS if prompts is None else _lines(prompts, "--prompts"),
            index=_served_index(index),
            films=lambda: build_index(load_catalog()),
            on_status=status.update,
        )
    serving.show(report, tables.console_for_tables())
    _save(report, out_folder)


def _lines(path: Path, option: str) -> list[str]:
    """The lines of a file that are not empty.

    Raises:
        ArgumentError: the file cannot be read, or has no lines.
    """
    try:
        lines = list(filter(None, map(str.strip, path.read_text(encoding="utf-8").splitlines())))
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"{option} {path} cannot be read: {error}") from None
    if not lines:
        raise ArgumentError(f"{option} {path} is empty.")
    return lines


def _served_index(path: Path | None) -> Callable[[int | None], TrieIndex] | None:
    """The index of a version, by its number. Of a live index, versions are loaded when they are needed."""
    if path is None:
        return None
    if not is_live(path):
        index = load_index(path, mmap=True)
        return lambda _: index
    live = LiveIndex.open(path)
    return cache(lambda number: live.load_version(number).index)


def plan(
    *,
    items: Annotated[int, typer.Option(parser=whole_number, metavar="N", help="Number of items, for example 20e6.")],
    levels: Annotated[
        int | None,
        typer.Option(min=1, max=255, help="Number of levels: codes per SID. Default: one per codebook size, or 8."),
    ] = None,
    codebook_sizes: Annotated[
        Any, typer.Option(parser=sizes_of, metavar="SIZES", help="One size for all levels, or per level 256,256,64.")
    ] = "2048",
    rate: Annotated[
        Path | None,
        typer.Option(help="A JSON file of `hedgerow bench build`, to estimate the build time on this machine."),
    ] = None,
    compact: Annotated[bool, typer.Option("--compact", help="Plan an index in the compact layout.")] = False,
    as_json: AsJson = False,
) -> None:
    """Estimate the bytes, branch factors and build time of an index of uniformly random SIDs."""
    from hedgerow.bench import planning

    levels = levels or (len(codebook_sizes) if isinstance(codebook_sizes, list) else LEVELS)
    planned = planning.plan(items, levels, codebook_sizes, rate_file=rate, layout="compact" if compact else "plain")
    if as_json:
        print_json(planned.to_dict())
    else:
        planning.show(planned, out)


def _compare(experiment: Callable[[Options], Report], shared: Shared, sweeps: dict[str, str] | None = None) -> Report:
    """Run an experiment, print its tables and save its rows.

    Args:
        experiment: the benchmark.
        shared: the options.
        sweeps: for a benchmark over several sizes, the column of the size for each case.
    """
    from hedgerow.bench import tables

    with _measuring("starting ...") as on_status:
        report = experiment(shared.options(on_status))
    console = tables.console_for_tables()
    if sweeps is None:
        tables.show_comparison(report, console)
    else:
        for case, size in sweeps.items():
            tables.show_sweep(report, case, size, console)
        tables.show_footer(report, console)
    _save(report, shared.out_folder)
    return report


@contextmanager
def _measuring(message: str) -> Iterator[OnStatus]:
    """Show the stage of a measurement, and warn if other processes use the cores, before it and after it."""
    from hedgerow.bench import machine

    for warning in machine.load_warnings():
        print_warning(warning)
    before = machine.cpu_times()
    with err.status(message) as status:
        yield status.update
    for warning in machine.contention_warnings(before, machine.cpu_times()):
        print_warning(warning)


def _save(report: Report, folder: Path | None) -> None:
    for path in report.save(folder) if folder is not None else ():
        err.print(f"[dim]wrote {path}[/]", soft_wrap=True)


def _png(folder: Path, report: Report, part: str = "") -> Path:
    return folder / f"{report.stem}{'-' + part if part else ''}.png"


def _print_figure(path: Path | None) -> None:
    message = f"wrote {path}" if path else f"no figure: {escape(install_command('bench'))}"
    err.print(f"[dim]{message}[/]", soft_wrap=True)
