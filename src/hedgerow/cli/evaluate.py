"""`hedgerow evaluate`: a model beside baselines and blends, on the next items of users."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from hedgerow.cli.common import (
    AsJson,
    let_threads_sleep,
    names_of,
    new_table,
    out,
    print_json,
    print_path,
    progress_bar,
    shared_options,
    whole_numbers,
)
from hedgerow.cli.histories import HistoriesPath, HistoryOptions
from hedgerow.cli.search import check_model
from hedgerow.cli.served import ServedPath
from hedgerow.errors import ArgumentError

if TYPE_CHECKING:
    from hedgerow.training import BlendSpec, Evaluation

NO_MODEL = "none"
HEADINGS = {"NDCG@10": "NDCG", "MRR@20": "MRR", "coverage@10": "cover", "novelty@10": "novel"}


@shared_options(HistoryOptions)
def evaluate(
    history_options: HistoryOptions,
    models: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="The folder of a model that hedgerow train wrote; folders of several seeds, separated by commas, are "
            "averaged. none: baselines only.",
            show_default=False,
        ),
    ],
    index: ServedPath,
    histories: HistoriesPath,
    *,
    text: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="An attribute of the index with texts, for text-knn.")
    ] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Parquet with the columns item_id and embedding, for content-knn."),
    ] = None,
    quantizer: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The quantizer that made the SIDs, for content-knn.")
    ] = None,
    blend: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMES",
            help="A blend of methods: model,item-knn,text-knn. Weights are tuned on validation users; or "
            "model=0.6,text-knn=0.4. Repeat the option for several blends.",
        ),
    ] = None,
    verify: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A method that drafts items, which the model orders. Repeatable."),
    ] = None,
    part: Annotated[str, typer.Option(metavar="PART", help="test; or validation, to make choices.")] = "test",
    later: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Interactions after those of HISTORIES, in a file of the same columns: the questions are the first "
            "later item of each user.",
        ),
    ] = None,
    among: Annotated[str, typer.Option(metavar="ITEMS", help="The candidates: all items, or cold ones only.")] = "all",
    users: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Number of questions, at random. Default: all.")
    ] = None,
    k: Annotated[str, typer.Option("-k", metavar="N,N", help="The cutoffs of Recall.")] = "1,5,10,20",
    beam_width: Annotated[int, typer.Option(metavar="N", min=1, help="Number of beams per prompt.")] = 50,
    normalize: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="As for retrieve: codes, vocab or allowed. Default: that of the model."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="The PyTorch device: cpu, cuda, ... Default: cpu.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="The seed of samples and intervals.")] = 0,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all figures with all settings.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw Recall@10: .png, .svg or .pdf.")] = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate a model on the next items of users, beside baselines: popularity, item-kNN and content-kNN.

    Every method answers the same questions among all items that are not in the history of the user. The split is that
    of the model; without one, the last item of each user is the question. With --later, the questions are in a file of
    their own. A target is cold if no interaction with it is
    in the training part. Intervals are 95 % intervals by bootstrap over users.
    """
    let_threads_sleep()
    blends = [_spec(text) for text in blend or []] + [_verified(name) for name in verify or []]
    cutoffs = whole_numbers(k, "-k")
    folders = None if models == NO_MODEL else names_of(models)
    for folder in folders or ():
        check_model(folder, "MODEL")
    if later is not None and history_options.split is not None:
        raise typer.BadParameter("--later has the questions; a split of HISTORIES has others", param_hint="--split")
    _check_outputs(csv, plot)
    from hedgerow import training
    from hedgerow.live.opened import open_searched

    with progress_bar(enabled=True) as progress:
        opened = open_searched(index)
        read = history_options.read(histories, opened)
        evaluation = training.evaluate(
            folders,
            opened,
            read if history_options.split is None else history_options.split_of(read),
            text=text,
            embeddings=None if embeddings is None else str(embeddings),
            quantizer=quantizer,
            blends=blends,
            later=None if later is None else history_options.read(later, opened),
            part=part,  # pyright: ignore[reportArgumentType]
            among=among,
            users=users,
            ks=cutoffs,
            beam_width=beam_width,
            seed=seed,
            progress=progress,
            normalize=normalize,
            device=device,
        )
    if csv is not None:
        evaluation.save_csv(csv)
    if plot is not None:
        training.plot_evaluation(evaluation, plot, metric=_plotted(evaluation))
    if as_json:
        print_json({"rows": evaluation.table().to_pylist(), "settings": dict(evaluation.settings)})
        return
    _show(evaluation)
    for path, what in ((csv, "all figures"), (plot, "the figure")):
        if path is not None:
            print_path(path, what)


def _spec(text: str) -> BlendSpec:
    """Parse --blend: names, or names with weights."""
    from hedgerow.training import BlendSpec

    pairs = [part.partition("=") for part in names_of(text)]
    names = tuple(name.strip() for name, _, _ in pairs)
    if not any(sign for _, sign, _ in pairs):
        return BlendSpec(names)
    try:
        return BlendSpec(names, tuple(float(weight) for _, _, weight in pairs))
    except ValueError:
        message = f"expected names, or a weight for each name, as model=0.6,text-knn=0.4; got {text!r}"
        raise typer.BadParameter(message, param_hint="--blend") from None


def _verified(name: str) -> BlendSpec:
    from hedgerow.training import BlendSpec

    return BlendSpec(("model",), drafts=(name,))


def _check_outputs(csv: Path | None, plot: Path | None) -> None:
    """Check the paths of outputs before hours of work."""
    if csv is not None and not csv.expanduser().parent.is_dir():
        raise ArgumentError(f"{csv} cannot be written: there is no folder {csv.parent}. Create it first.")
    if plot is not None:
        from hedgerow.hf.plot import check_figure_path

        check_figure_path(plot.expanduser())


def _plotted(evaluation: Evaluation) -> str:
    names = [name for name in evaluation.rows[0].metrics if name.startswith("Recall@")]
    return "Recall@10" if "Recall@10" in names else names[-1]


def _show(evaluation: Evaluation) -> None:
    """Print a table per kind of targets. With the interval of one metric, it fits in 80 columns."""
    plotted, weights = _plotted(evaluation), evaluation.settings["blends"]
    names = [name for name in evaluation.rows[0].metrics if name != "Recall@20" or name == plotted]
    headings: list[str] = []
    for name in names:
        headings += [HEADINGS.get(name, name.replace("Recall", "R")), *(["95 %"] if name == plotted else [])]
    for targets in dict.fromkeys(row.targets for row in evaluation.rows):
        rows = [row for row in evaluation.rows if row.targets == targets]
        title = f"{targets} targets: {rows[0].questions:,} questions"
        table = new_table(title, "method", *headings, numbers=tuple(headings))
        best = {name: max(row.metrics[name].mean for row in rows) for name in names}
        for row in rows:
            cells = []
            for name in names:
                value = row.metrics[name]
                text = f"{value.mean:.1f}" if name.startswith("novelty") else f"{100 * value.mean:.2f}"
                cells.append(f"[bold]{text}[/]" if value.mean == best[name] > 0 else text)
                if name == plotted:
                    cells.append(f"{100 * value.low:.1f}-{100 * value.high:.1f}")
            table.add_row(escape(row.method), *cells)
        out.print(table)
    for label, values in weights.items():
        shown = ", ".join(f"{name} {weight:g}" for name, weight in values.items())
        out.print(f"{escape(label)}: weights {shown}", highlight=False)
    out.print("Percent; novelty of the first 10 items in bits, and their share of all items; NDCG@10.", highlight=False)
    out.print("95 %: the interval by bootstrap over users; exact for 0 hits. --csv has all figures.", highlight=False)
