"""Named rules of a service: a TOML file of SQL expressions and windows of time, as constraint sets of an index."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hedgerow.constraints.sets import ConstraintSet
from hedgerow.errors import ArgumentError, HedgerowError
from hedgerow.trie_index import TrieIndex

WINDOW_KEYS = {"newest", "days", "nulls"}


@dataclass(frozen=True)
class Rule:
    """A named rule.

    Attributes:
        text: the rule as people read it.
        where: an SQL expression; None if it is a window.
        window: the arguments of `TrieIndex.newest`; None if it is an expression.
    """

    text: str
    where: str | None = None
    window: Mapping[str, Any] | None = None

    def set_of(self, index: TrieIndex, name: str) -> ConstraintSet:
        """The items of an index that the rule is true for.

        Raises:
            ConstraintError: the rule does not fit the index.
        """
        if self.where is not None:
            return index.where(self.where, name=name)
        return index.newest(**(self.window or {}), name=name)


def read_rules(path: Path) -> dict[str, Rule]:
    """Read the rules of a TOML file: `[sets]`, and in it `name = "SQL"` or `name = {newest = "released", days = 7}`.

    Raises:
        ArgumentError: the file cannot be read, or a rule has another form.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArgumentError(f"the rules {path} cannot be read: {error}") from None
    unknown = set(content) - {"sets"}
    if unknown or not isinstance(content.get("sets", {}), dict):
        raise ArgumentError(f"{path} must have one table, [sets]; got {', '.join(sorted(content)) or 'nothing'}.")
    return {name: _rule(f"{path}: set {name!r}", rule) for name, rule in content.get("sets", {}).items()}


def _rule(what: str, rule: Any) -> Rule:
    if isinstance(rule, str):
        return Rule(rule, where=rule)
    if isinstance(rule, dict) and {"newest", "days"} <= set(rule) <= WINDOW_KEYS:
        window = {"attribute": rule["newest"], "days": rule["days"], "nulls": rule.get("nulls", "out")}
        return Rule(f"{rule['newest']} in the last {rule['days']} days", window=window)
    raise ArgumentError(
        f'{what} must be an SQL expression, "year >= 2000", or a window, {{newest = "released", days = 7}} with '
        f'optional nulls = "in"; got {rule!r}.'
    )


def sets_of(index: TrieIndex, rules: Mapping[str, Rule]) -> dict[str, ConstraintSet]:
    """The sets of an index for all rules.

    Raises:
        ArgumentError: a rule does not fit the index.
    """
    found = {}
    for name, rule in rules.items():
        try:
            found[name] = rule.set_of(index, name)
        except HedgerowError as error:
            raise ArgumentError(f"set {name!r} ({rule.text}): {error}") from error
    return found
