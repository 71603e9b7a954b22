"""tokens.json: the tokens of codes, and how a history is written in a prompt, in the folder of a model."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

import numpy as np

from hedgerow._arguments import distinct_keys, whole_number
from hedgerow.errors import ArgumentError
from hedgerow.token_tables import checked_delimiter

FILE = "tokens.json"
FORMAT = 1


@dataclass(frozen=True)
class HistoryForm:
    """How the history of a user is written in a prompt: start, then the tokens of each item, oldest first.

    Attributes:
        start: the tokens before the first item.
        separator: the tokens between two items.
        max_items: the largest number of items: the latest are used. None: all.

    Raises:
        ArgumentError: a token is not an integer from 0, or `max_items` is not a positive integer.

    Examples:
        ```python
        import hedgerow as hr

        assert hr.HistoryForm(start=(1,), max_items=20).separator == ()
        ```
    """

    start: tuple[int, ...] = ()
    separator: tuple[int, ...] = ()
    max_items: int | None = None

    def __post_init__(self) -> None:
        for name in ("start", "separator"):
            object.__setattr__(self, name, checked_delimiter(f"{name} of a history", getattr(self, name)))
        if self.max_items is not None:
            whole_number(self.max_items, "max_items")


def file_of(path: str | Path) -> Path:
    """The file of tokens at a path: in a folder, tokens.json."""
    file = Path(path).expanduser()
    return file / FILE if file.is_dir() else file


def write(path: Path, facts: Mapping[str, Any]) -> None:
    """Write a file of tokens, completely or not at all.

    Raises:
        ArgumentError: it cannot be written.
    """
    new = path.with_name(f".{token_hex(8)}.new")
    try:
        new.write_text(json.dumps({"format": FORMAT} | dict(facts)) + "\n", encoding="utf-8")
        os.replace(new, path)
    except OSError as error:
        raise ArgumentError(f"{path} cannot be written: {error}") from None
    finally:
        new.unlink(missing_ok=True)


def read(path: Path) -> dict[str, Any]:
    """The facts in a file of tokens.

    Raises:
        ArgumentError: it does not exist, is damaged, or has a newer format.
    """
    try:
        facts = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=distinct_keys)
    except FileNotFoundError:
        raise ArgumentError(f"{path} does not exist. hedgerow train and TokenMap.save write it.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ArgumentError(f"{path} cannot be read as the tokens of a model: {error}") from None
    if not isinstance(facts, dict) or not isinstance(facts.get("levels"), list):
        raise ArgumentError(f"{path} is not a file of TokenMap.save: it has no list of levels.")
    if facts.get("format") != FORMAT:
        raise ArgumentError(
            f"{path} has format {facts.get('format')!r}; this version of hedgerow reads format {FORMAT}. Install a "
            "newer version."
        )
    return facts


def packed(table: np.ndarray) -> dict[str, int] | list[int]:
    """A table of token ids as JSON: consecutive ids as their first and their number."""
    if len(table) and table[0] >= 0 and (np.diff(table) == 1).all():
        return {"first": int(table[0]), "codes": len(table)}
    return table.tolist()


def unpacked(path: Path, level: Any) -> np.ndarray:
    """The table of token ids of a level.

    Raises:
        ArgumentError: it is no table.
    """
    if isinstance(level, dict) and level.keys() == {"first", "codes"}:
        first, codes = (whole_number(level[name], f"{path}: {name}", 0, 2**31) for name in ("first", "codes"))
        return first + np.arange(codes)
    if isinstance(level, list):
        return np.asarray(level)
    raise ArgumentError(f"{path}: expected for each level a list of token ids, or first and codes; got {level!r:.60}")


def form_facts(form: HistoryForm | None) -> dict[str, Any]:
    """A form as facts of a file; nothing for None."""
    return {} if form is None else {"history": asdict(form)}


def form_of(path: Path, facts: Mapping[str, Any]) -> HistoryForm | None:
    """The form in the facts of a file.

    Raises:
        ArgumentError: it is invalid.
    """
    history = facts.get("history")
    if history is None:
        return None
    if not isinstance(history, dict) or not history.keys() <= {"start", "separator", "max_items"}:
        raise ArgumentError(f"{path}: history must have start, separator and max_items; got {history!r:.100}")
    return HistoryForm(**history)
