"""The histories of users: the options of `hedgerow train` and `hedgerow evaluate` that read and split them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hedgerow.cli.catalogs import Dates
from hedgerow.errors import ArgumentError

if TYPE_CHECKING:
    from hedgerow.hf.searched import Searched
    from hedgerow.training import Histories, Split

HistoriesPath = Annotated[
    Path,
    typer.Argument(
        metavar="HISTORIES",
        help="Interactions, one per row: Parquet, CSV or JSON lines; a file, a folder or a quoted pattern.",
        show_default=False,
    ),
]


@dataclass(frozen=True, kw_only=True)
class HistoryOptions:
    """The columns of histories, what is done with odd rows, and the split. Each field is an option."""

    user: Annotated[str, typer.Option(metavar="COLUMN", help="The column of user ids.")] = "user"
    item: Annotated[str, typer.Option(metavar="COLUMN", help="The column of item ids.")] = "item_id"
    timestamp: Annotated[
        str, typer.Option(metavar="COLUMN", help="The column of times: numbers, dates or timestamps.")
    ] = "timestamp"
    in_order: Annotated[
        bool, typer.Option("--in-order", help="There is no column of times: the rows of each user are in order.")
    ] = False
    unknown: Annotated[
        str, typer.Option(metavar="NAME", help="Items that are not in the index: error, or skip and count them.")
    ] = "error"
    duplicates: Annotated[
        str, typer.Option(metavar="NAME", help="Rows that repeat user, item and time: error, or skip and count them.")
    ] = "error"
    dates: Dates = None
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="TIME,TIME",
            help="Split by time: the first interactions of users from the first time on are the validation, from the "
            "second time on the test. Default: of each user, the last item is the test, the one before the validation.",
        ),
    ] = None

    def read(self, path: Path, index: Searched) -> Histories:
        """Read the histories. Errors as for `hedgerow.training.read_histories`."""
        from hedgerow.training import read_histories

        if self.in_order and self.timestamp != "timestamp":
            message = f"says that there is no column of times; --timestamp names {self.timestamp!r}. Pass one of them"
            raise typer.BadParameter(message, param_hint="--in-order")
        choices: dict[str, Any] = {"unknown": self.unknown, "duplicates": self.duplicates, "dates": self.dates}
        timestamp = None if self.in_order else self.timestamp
        return read_histories(path, index, user=self.user, item=self.item, timestamp=timestamp, **choices)

    def split_of(self, histories: Histories) -> Split:
        """The split that --split names.

        Raises:
            BadParameter: the text is not two times.
            ArgumentError: the times do not fit the histories.
        """
        from hedgerow.training import leave_one_out, split_by_time

        if self.split is None:
            return leave_one_out(histories)
        parts = [part.strip() for part in self.split.split(",")]
        if len(parts) != 2 or not all(parts):
            message = f"expected two times, as 2024-05-01,2024-06-01; got {self.split!r}"
            raise typer.BadParameter(message, param_hint="--split")
        if histories.times is None:
            raise ArgumentError("--split needs a column of times; --in-order says that there is none.")
        return split_by_time(histories, validation=parts[0], test=parts[1])
