"""`hedgerow warm-up`: compile what searches need once, for example while the image of a container is built."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from hedgerow._compiled import native
from hedgerow.cli.common import let_threads_sleep, new_table, out, print_json, shared_options, whole_numbers
from hedgerow.cli.search import SearchOptions
from hedgerow.index.trie import bytes_as_text

if TYPE_CHECKING:
    from hedgerow.hf import Retriever
    from hedgerow.hf.caches import Filled

OF_REQUESTS = {"beam_width", "k", "fill", "where", "history", "repeat", "exclude", "candidates", "caps", "order_by"}
AHEAD = "nothing to cache: the step on a CPU is compiled ahead of time"
NO_MODULE = "nothing to cache: without the compiled module of hedgerow, the step on a CPU is operations of PyTorch"


@dataclass(frozen=True)
class Searched:
    """The searches of one shape: with and without sets, exclusions and candidates.

    Attributes:
        batch_size: the largest number of requests in a batch.
        beam_width: the number of beams.
        first_seconds: the time of all searches.
        second_seconds: the time of the same searches again.
    """

    batch_size: int
    beam_width: int
    first_seconds: float
    second_seconds: float


@shared_options(SearchOptions, omit=OF_REQUESTS)
def warm_up(
    search: SearchOptions,
    *,
    beam_width: Annotated[str, typer.Option(metavar="N,N", help="The beam widths of requests.")] = "50",
    batch_sizes: Annotated[str, typer.Option(metavar="N,N", help="Numbers of requests in a batch.")] = "1,32",
) -> None:
    """Fill the caches of compiled code, so that the first requests of a new container do not wait for a compiler."""
    search = search.with_folders([])
    widths, sizes = (_positive(*pair) for pair in ((beam_width, "--beam-width"), (batch_sizes, "--batch-sizes")))
    let_threads_sleep()
    opened = search.open_index()
    import torch

    from hedgerow.hf.caches import cache_folders

    device = torch.device(search.device or "cpu").type
    folders = cache_folders(device, compiled=search.compile)
    for folder in folders:
        folder.check()
    began, started = time.time(), time.perf_counter()
    retriever = search.open_retriever(opened)
    seconds = time.perf_counter() - started
    searched = [_searched(retriever, size, width) for size in sizes for width in widths]
    filled = [folder.filled(began) for folder in folders]
    nothing = None if folders else _nothing(device)
    if search.as_json:
        facts = {"load_seconds": seconds, "searches": [asdict(each) for each in searched]}
        print_json(facts | {"caches": [each.to_dict() for each in filled], "note": nothing})
        return
    _show(seconds, searched, filled)
    if nothing is not None:
        out.print(nothing, soft_wrap=True, highlight=False)


def _positive(text: str, option: str) -> list[int]:
    """Parse integers from 1.

    Raises:
        BadParameter: the text is something else.
    """
    numbers = whole_numbers(text, option)
    if min(numbers) < 1:
        raise typer.BadParameter(f"expected integers of at least 1; got {text!r}", param_hint=option)
    return numbers


def _searched(retriever: Retriever, batch_size: int, beam_width: int) -> Searched:
    from hedgerow.hf import Shapes

    shapes = Shapes((beam_width,), batch_size, sets=batch_size, excluded=1, candidates=True)
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        retriever.warm_up(shapes)
        seconds.append(time.perf_counter() - started)
    return Searched(batch_size, beam_width, *seconds)


def _nothing(device: str) -> str:
    if device != "cpu":
        return f"nothing to cache: no code is compiled for {device} without --compile"
    return NO_MODULE if native is None else AHEAD


def _show(load_seconds: float, searched: list[Searched], filled: list[Filled]) -> None:
    numbers = ("batch", "beams", "first, s", "second, s")
    table = new_table(None, *numbers, numbers=numbers)
    for each in searched:
        seconds = (f"{value:.3f}" for value in (each.first_seconds, each.second_seconds))
        table.add_row(f"{each.batch_size:,}", f"{each.beam_width:,}", *seconds)
    out.print(f"loaded and tried in {load_seconds:.1f} s; then the searches of each shape, twice:", highlight=False)
    out.print(table)
    for folder in filled:
        size = f"{folder.new_files:,} new files; {folder.files:,} files, {bytes_as_text(folder.nbytes)}"
        out.print(f"{folder.variable} {escape(folder.path)}: {size}", soft_wrap=True, highlight=False)
