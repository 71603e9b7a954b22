"""RuledTrie: a trie with methods that make constraint sets of its items."""

from __future__ import annotations

from typing import Any

from hedgerow.constraints import create, rules, sql
from hedgerow.constraints.masks import Order
from hedgerow.constraints.rules import Nulls
from hedgerow.constraints.sets import ConstraintSet
from hedgerow.index.lookup import Missing
from hedgerow.index.trie import Trie


class RuledTrie(Trie):
    """The base of `TrieIndex`: constraint sets from masks, ids, functions, SQL and time windows."""

    def constraint(
        self,
        mask: Any = None,
        *,
        ids: Any = None,
        rows: Any = None,
        order: Order = None,
        name: str | None = None,
        missing: Missing = "raise",
    ) -> ConstraintSet:
        """Create a constraint set of this index's items, for `constraints=` of a search.

        Args:
            mask: a function that maps `index.attributes` (an Arrow table of N rows) to bool [N]. Or a mask with the ids
                of all items, in any order: a pandas Series whose index has the ids, or a pandas, Polars or Arrow frame
                with two columns, the ids and the mask. Or, with `order="index"`, bool [N] without ids. One of PyTorch
                or JAX on a GPU or a TPU stays there, for searches on the same device.
            ids: item ids in any order, instead of a mask.
            rows: int [R], positions in `index.item_ids`, as in `Results.rows`, in any order, instead of a mask. Rows of
                PyTorch or JAX on a GPU or a TPU stay there, as a mask does. With `missing="ignore"`, the host does not
                wait for the device.
            order: "index" says that a mask without ids is in the order of `index.item_ids` and `index.attributes`,
                which is the order of SIDs, **not of the catalog's rows**. Without it, such a mask is an error. A pandas
                Series whose index has integers and no name is such a mask: they may be row numbers.
            name: the label of the set in messages. Default: the kind of input.
            missing: "raise" an error for ids or rows that are not in the index, or "ignore" them.

        Raises:
            ConstraintError: the mask is not bool [N], has neither ids nor an order, or does not have one entry for each
                item; or an id is not in the index or not of the type of its ids; or rows are not integers [R], or are
                not in the index.

        Examples:
            ```python
            import numpy as np
            import hedgerow as hr

            catalog = hr.Catalog([[0, 1], [2, 0]], item_ids=["a", "b"], attributes={"price": [3, 9]})
            index = hr.build_index(catalog)
            cheap = index.constraint(lambda attributes: np.asarray(attributes["price"]) < 5)
            assert "a" in cheap and "b" not in cheap
            assert cheap == index.constraint(ids=["a"])
            assert cheap == index.constraint(np.array([True, False]), order="index")
            assert cheap == index.constraint(rows=[0])
            ```
        """
        return create.constraint(self, mask, ids, rows, order, name, missing)

    def where(
        self, expression: str, *, name: str | None = None, timezone: str = "UTC", timeout: float = 60
    ) -> ConstraintSet:
        """Create the constraint set of the items for which an SQL expression is true, for example `"year >= 2000"`.

        DuckDB evaluates the expression, with at most 2 GB of memory. It can use the attributes, `item_id`, and in
        subqueries the table `items`; it has no access to files, the network, the environment or extensions. Items for
        which it is null are not in the set. The result is cached, unless the expression names the clock or chance, for
        example `now()`, `current_date` or `random()`.

        Args:
            expression: a boolean SQL expression over one item.
            name: the label of the set in messages. Default: the expression.
            timezone: the time zone of dates, of the clock, and of timestamps without one: "Europe/Berlin".
            timeout: the maximum number of seconds.

        Raises:
            ConstraintError: the expression is invalid or not boolean, the message quotes DuckDB; or it takes too much
                time or memory; or there is no such time zone.
            MissingDependencyError: DuckDB is not installed.

        Examples:
            ```python
            import hedgerow as hr

            catalog = hr.Catalog([[0, 1], [2, 0]], item_ids=["a", "b"], attributes={"price": [3, 9]})
            index = hr.build_index(catalog)
            assert len(index.where("price < 5")) == 1
            ```
        """
        return sql.where(self, expression, name, timezone, timeout)

    def newest(
        self, attribute: str, *, days: float, now: Any = None, nulls: Nulls = None, name: str | None = None
    ) -> ConstraintSet:
        """Create the constraint set of the items whose `attribute` lies in the last `days` before `now`, inclusive.

        A set for another window takes milliseconds and does not trigger recompilation.

        Args:
            attribute: the name of an attribute of dates, timestamps (UTC if they have no time zone) or numbers.
            days: the length of the window; for numbers, in their own units.
            now: the end of the window: a date (its midnight) or a datetime, or for numbers a number. Default: the
                current time; of an attribute of dates, the current date in UTC.
            nulls: whether items without a value (null or NaN) are "in" or "out" of the set. Required if there are such
                items; the error says how many. If no item has a value, the set is all items or none: its name says so,
                and a warning is logged.
            name: the label of the set in messages. Default: made from the attribute and the window.

        Raises:
            ConstraintError: there is no such attribute, its type is not a date, timestamp or number, or it has nulls
                and `nulls` is not given.

        Examples:
            ```python
            import hedgerow as hr

            catalog = hr.Catalog([[0, 1], [2, 0]], item_ids=["a", "b"], attributes={"day": [20, 3]})
            index = hr.build_index(catalog)
            assert "a" in index.newest("day", days=7, now=25)
            ```
        """
        return rules.newest(self, attribute, days, now, nulls, name)
