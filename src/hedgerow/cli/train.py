"""`hedgerow train`: train a model on the histories of users."""

from __future__ import annotations

import os
import warnings
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hedgerow.cli.common import (
    AsJson,
    Overwrite,
    err,
    let_threads_sleep,
    new_table,
    out,
    print_json,
    print_path,
    print_warning,
    progress_bar,
    shared_options,
)
from hedgerow.cli.histories import HistoriesPath, HistoryOptions
from hedgerow.cli.served import ServedPath

if TYPE_CHECKING:
    from hedgerow.training import Histories, Split, TrainingReport


@shared_options(HistoryOptions)
def train(
    history_options: HistoryOptions,
    index: ServedPath,
    histories: HistoriesPath,
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="MODEL", help="The folder to write.", show_default=False)
    ],
    quantizer: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The quantizer of the SIDs, which semantic-ids --quantizer wrote: embeddings of codes start from its "
            "centroids. Recommended for small data.",
        ),
    ] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Or the embeddings of the items: Parquet with item_id and embedding."),
    ] = None,
    size: Annotated[
        str, typer.Option(metavar="NAME", help="The size of a new model: tiny, small, medium or large.")
    ] = "small",
    base: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Start from this causal model of transformers, not a new one.")
    ] = None,
    lora: Annotated[
        int | None, typer.Option(metavar="RANK", help="Train adapters of this rank on --base; they are merged.")
    ] = None,
    epochs: Annotated[int, typer.Option(metavar="N", min=1, help="The largest number of passes.")] = 8,
    batch_size: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Sequences per step and device. Default: 16 to 256, by their number."),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(metavar="X", help="The largest learning rate. Default: 3e-3; with --base 1e-4, --lora 3e-4."),
    ] = None,
    loss: Annotated[
        str,
        typer.Option(metavar="NAME", help="Predict a code among: codes, all of its level, or allowed, those of items."),
    ] = "codes",
    weight_decay: Annotated[float, typer.Option(metavar="X", help="The decay of matrices.")] = 0.05,
    dropout: Annotated[float, typer.Option(metavar="P", help="Share of numbers that are dropped.")] = 0.1,
    item_dropout: Annotated[float, typer.Option(metavar="P", help="Share of items that are left out.")] = 0.1,
    max_items: Annotated[int, typer.Option(metavar="N", min=1, help="Items of a prompt: the latest.")] = 20,
    separator: Annotated[bool, typer.Option("--separator", help="Put a token between items.")] = False,
    patience: Annotated[
        int, typer.Option(metavar="N", min=0, help="Stop after N validations without a better one. 0: never.")
    ] = 3,
    validate_every: Annotated[float, typer.Option(metavar="EPOCHS", help="Epochs between validations.")] = 1.0,
    validation_users: Annotated[int, typer.Option(metavar="N", min=1, help="Users of a validation.")] = 2000,
    beam_width: Annotated[int, typer.Option(metavar="N", min=1, help="Beams of a validation.")] = 20,
    precision: Annotated[str, typer.Option(metavar="NAME", help="auto, float32 or bfloat16.")] = "auto",
    device: Annotated[str | None, typer.Option(metavar="NAME", help="cpu or cuda. Default: cuda if present.")] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="The seed.")] = 0,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write logs for TensorBoard to MODEL/logs.")] = (
        False
    ),
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted training of MODEL.")] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Train a model on the histories of users, with early stopping on Recall@10 of a constrained search.

    The folder has a plain model of transformers, which retrieve, serve and explain take.
    """
    settings = {name: value for name, value in locals().items() if name in _settings()}
    settings["patience"] = patience or None
    let_threads_sleep()
    with err.status("reading the index and the histories ..."), warnings.catch_warnings():
        from hedgerow.live.opened import open_searched
        from hedgerow.training import TrainingOptions
        from hedgerow.training import train as trained

        options = TrainingOptions(**settings)
        opened = open_searched(index)
        read = history_options.read(histories, opened)
        split = history_options.split_of(read)
    # Of several processes, the first reports.
    is_first = os.environ.get("RANK", "0") == "0"
    if is_first and not as_json:
        err.print(describe(read, split), soft_wrap=True)
    content: dict[str, Any] = {"quantizer": quantizer, "embeddings": embeddings}
    with progress_bar(enabled=is_first and not as_json) as progress:
        try:
            report = trained(
                opened, split, output, options, **content, resume=resume, overwrite=overwrite, progress=progress
            )
        except KeyboardInterrupt:
            print_warning("interrupted. The same command with --resume continues from the last checkpoint, if any.")
            raise
    if is_first:
        _print(report, as_json=as_json)


def _settings() -> set[str]:
    from hedgerow.training.options import TrainingOptions

    return {field.name for field in fields(TrainingOptions)}


def describe(histories: Histories, split: Split) -> str:
    """A line about histories and their split."""
    lengths = histories.lengths
    single = int((lengths == 1).sum())
    parts = [
        f"{len(histories):,} users, {len(histories.items):,} interactions, {int(lengths.min())} to "
        f"{int(lengths.max())} per user",
        f"{len(split.questions('validation')):,} validation and {len(split.questions('test')):,} test questions",
    ]
    parts += [f"{single:,} users with one item only train"] * bool(single)
    parts += [f"{histories.unknown:,} rows with unknown items skipped"] * bool(histories.unknown)
    parts += [f"{histories.duplicates:,} duplicates skipped"] * bool(histories.duplicates)
    return "; ".join(parts)


def _print(report: TrainingReport, *, as_json: bool) -> None:
    facts = {
        "folder": str(report.folder),
        "parameters": report.parameters,
        "best": report.best,
        "validations": report.validations,
        "seconds": report.seconds,
    }
    if as_json:
        print_json(facts)
        return
    if report.validations:
        headings = ("epoch", "Recall@10", "NDCG@10")
        table = new_table("validation", *headings, numbers=headings)
        best = max(entry["recall@10"] for entry in report.validations)
        for entry in report.validations:
            cells = f"{entry['epoch']:.2f}", f"{entry['recall@10']:.4f}", f"{entry['ndcg@10']:.4f}"
            table.add_row(*cells, style="bold" if entry["recall@10"] == best else None)
        popular = report.best["popular recall@10"]
        table.add_row("popular", f"{popular:.4f}", "", style="dim")
        out.print(table)
    print_path(report.folder, f"{report.parameters:,} parameters, {report.seconds:.0f} s")
