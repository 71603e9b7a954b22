"""Attributes of an index: their columns and types after items are added, and changes of attributes alone."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hedgerow._arguments import check_choice
from hedgerow.catalog.catalog import RESERVED
from hedgerow.errors import ArgumentError, CatalogError
from hedgerow.index.lazy import made
from hedgerow.index.lookup import as_ids, changed_rows, check_known, hint_on_row_numbers
from hedgerow.index.trie import Trie

if TYPE_CHECKING:
    import pyarrow as pa

NewAttributes = Literal["error", "add", "drop"]
MissingAttributes = Literal["error", "null"]


@dataclass(frozen=True)
class AttributeRule:
    """What happens to attributes that only the index or only the added items have. `hedgerow.merge` documents it.

    Attributes:
        new: for attributes that only the added items have.
        missing: for attributes that only the index has.

    Raises:
        ArgumentError: a value is something else.
    """

    new: NewAttributes = "error"
    missing: MissingAttributes = "error"

    def __post_init__(self) -> None:
        check_choice(self.new, "new_attributes", ("error", "add", "drop"))
        check_choice(self.missing, "missing_attributes", ("error", "null"))


STRICT = AttributeRule()
ADD_HINT = (
    "To add new attributes, with null for the other items, pass new_attributes='add' (--new-attributes add); to leave "
    "them out, 'drop'."
)
NULL_HINT = (
    "To give the added items null for missing attributes, pass missing_attributes='null' (--missing-attributes null)."
)

UNKNOWN_HINT = (
    "Items are added with add(...) or update(...). hedgerow live update-attributes --unknown skip leaves such rows out."
)


def fitted_attributes(old: pa.Table, added: pa.Table, rule: AttributeRule) -> dict[str, pa.Array]:
    """The attributes of added items in the order and the types of the result: those of the index, then new ones.

    Args:
        old: the attributes of the index.
        added: the attributes of the added items.
        rule: for attributes that only one of them has.

    Raises:
        CatalogError: the attributes differ, and the rule does not allow it; or values do not fit their column.
    """
    import pyarrow as pa

    from hedgerow.catalog.types import one_array

    new = [name for name in added.column_names if name not in old.column_names]
    missing = [name for name in old.column_names if name not in added.column_names]
    is_refused = {ADD_HINT: bool(new) and rule.new == "error", NULL_HINT: bool(missing) and rule.missing == "error"}
    if any(is_refused.values()):
        raise CatalogError(
            f"the index has the attributes {old.column_names}, but the items to add have {added.column_names}. "
            + " ".join(hint for hint, refused in is_refused.items() if refused)
        )
    columns = {
        name: pa.nulls(added.num_rows, old.column(name).type)
        if name in missing
        else _fitted(old.column(name), added.column(name), name)
        for name in old.column_names
    }
    return columns | ({name: one_array(added.column(name)) for name in new} if rule.new == "add" else {})


def _fitted(old: pa.ChunkedArray, new: pa.ChunkedArray, name: str) -> pa.Array:
    """Convert new values of a column to the type of the old ones, or to a wider type that holds both.

    Raises:
        CatalogError: there is no such type.
    """
    import pyarrow as pa

    from hedgerow.catalog.columns import as_type
    from hedgerow.catalog.exact import exact_cast, wider_type
    from hedgerow.catalog.types import one_array

    try:
        return as_type(new, pa.field(name, old.type))
    except CatalogError as error:
        wide = wider_type(old.type, new.type)
        try:
            if wide is not None:
                exact_cast(one_array(old), wide)
                return exact_cast(one_array(new), wide)
        except pa.ArrowException:
            # No type holds both.
            pass
        raise CatalogError(
            f"{error} To change the type, replace the column with update_attributes(table, drop=[{name!r}], "
            "new_attributes='add'), or build a new index, and publish it: live.publish(index)."
        ) from None


def joined_schema(old: pa.Schema, new: pa.Schema) -> pa.Schema:
    """The schema `new`, with the fields of `old` where their types are equal."""
    import pyarrow as pa

    is_same = {field.name: field.name in old.names and old.field(field.name).type == field.type for field in new}
    return pa.schema([old.field(field.name) if is_same[field.name] else field for field in new], old.metadata)


def conformed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Cast the columns of a table to a schema. Columns that the table does not have are null."""
    import pyarrow as pa

    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def with_attributes(
    index: Trie, table: Any, item_id: str, new_attributes: NewAttributes, drop: Collection[str]
) -> Trie:
    """The index in which attributes differ. `hedgerow.TrieIndex.with_attributes` documents arguments and errors."""
    from hedgerow.catalog.frames import changes_of

    rule, dropped = AttributeRule(new_attributes), _to_drop(index, drop)
    if table is None and not dropped:
        raise ArgumentError("there is nothing to change. Pass a table of item ids and attributes, or drop=[...].")
    items = index.items_table.drop_columns(dropped)
    if table is not None:
        ids, changes = changes_of(table, item_id, RESERVED)
        items = _changed(items, changes, _rows_of(index, ids), rule)
    order = made(index._id_order) if index._has_order else None
    return Trie(index.levels, index.leaf_start, index.leaf_forks, made(items), _load_order=order)


def _to_drop(index: Trie, drop: Any) -> list[str]:
    if isinstance(drop, str) or not isinstance(drop, Collection):
        raise ArgumentError(f"drop must be a list of attributes; got {drop!r}. For one attribute, pass [{drop!r}].")
    names = index.attributes.column_names
    unknown = [name for name in drop if name not in names]
    if unknown:
        raise CatalogError(
            f"there is no attribute {unknown[0]!r} to drop; the attributes are {', '.join(names) or 'none'}."
        )
    return list(drop)


def _rows_of(index: Trie, ids: pa.Array) -> np.ndarray:
    """The row of each id in the index [R] int64."""
    wanted = as_ids(index, ids, "item ids", error=CatalogError)
    rows = changed_rows(index, wanted)
    unknown = np.flatnonzero(rows < 0)
    hint = "" if not len(unknown) else f" It is in row {unknown[0]}. {UNKNOWN_HINT}{hint_on_row_numbers(index)}"
    check_known(rows, wanted, "item ids", CatalogError, hint)
    return rows


def _changed(items: pa.Table, changes: pa.Table, rows: np.ndarray, rule: AttributeRule) -> pa.Table:
    """Replace values of a table, and add columns.

    Args:
        items: N rows.
        changes: R rows of attributes.
        rows: [R] int64, the row of `items` of each row of `changes`.
        rule: for attributes that `items` does not have.
    """
    import pyarrow as pa

    new = [name for name in changes.column_names if name not in items.column_names]
    if new and rule.new == "error":
        raise CatalogError(
            f"the index has no attribute {new[0]!r}; its attributes are {items.column_names[1:]}. {ADD_HINT}"
        )
    known = [name for name in changes.column_names if name in items.column_names]
    columns = fitted_attributes(items.select(known), changes, rule)
    if not columns:
        return items
    values = pa.table(columns)
    schema = joined_schema(items.schema, values.schema)
    order = np.arange(items.num_rows)
    order[rows] = items.num_rows + np.arange(len(rows))
    both = pa.concat_tables([conformed(items, schema), conformed(values, schema)])
    changed = both.combine_chunks().take(order)
    for field in schema:
        position = items.schema.get_field_index(field.name)
        if position < 0:
            items = items.append_column(field, changed.column(field.name))
        else:
            items = items.set_column(position, field, changed.column(field.name))
    return items
