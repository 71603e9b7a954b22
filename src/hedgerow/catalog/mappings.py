"""Mappings of items to SIDs, and of SIDs to items, as JSON files hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hedgerow._arguments import check_choice
from hedgerow.catalog.codes import TextParser, is_text, looks_like_tokens, num_codes
from hedgerow.errors import CatalogError

KEYS = (None, "item", "sid")


def rows_of_mapping(items: Mapping[Any, Any], keys: str | None, *, ragged: bool) -> tuple[list[Any], list[Any]]:
    """The SIDs and the item ids of a mapping, one row per item.

    Args:
        items: item ids -> SIDs, or SIDs as text -> item ids.
        keys: "item" or "sid", what the keys are. Default: "sid" if the keys are tokens, or if they are numbers such as
            "2-6-4" and the values are not SIDs of one length.
        ragged: whether SIDs may have different lengths.

    Raises:
        CatalogError: a value is not a SID, or not an item or a list of items. The message names its key.
    """
    check_choice(keys, "keys", KEYS, error=CatalogError)
    if not items:
        raise CatalogError(
            "the mapping has no items, so the number of levels is unknown. For an empty catalog, use "
            "hr.Catalog(np.zeros((0, levels), int), codebook_sizes=...)."
        )
    by_sid = _keys_are_sids(items) if keys is None else keys == "sid"
    parser = TextParser(lone=ragged)
    return _rows_of_sids(items, parser) if by_sid else _rows_of_items(items, parser)


def _keys_are_sids(items: Mapping[Any, Any]) -> bool:
    if all(looks_like_tokens(key) for key in items):
        return True
    if not all(num_codes(key) for key in items):
        return False
    # Keys such as "2-6-4" can be item ids, too. Then the values are SIDs of more than one code.
    lengths = {_num_codes(value) for value in items.values()}
    return len(lengths) > 1 or min(lengths) <= 1


def _num_codes(value: Any) -> int:
    """The number of codes of a SID; 0 if the value is not one."""
    if isinstance(value, str):
        return num_codes(value)
    is_sid = _is_list(value) and all(isinstance(code, (int, np.integer)) for code in value)
    return len(value) if is_sid else 0


def _rows_of_items(items: Mapping[Any, Any], parser: TextParser) -> tuple[list[Any], list[Any]]:
    if is_text(next(iter(items.values()))):
        return [parser.codes(sid, f"item {item!r}") for item, sid in items.items()], list(items)
    for item, codes in items.items():
        if not _is_list(codes):
            raise CatalogError(
                f"item {item!r} must map to a list of integer codes, or every item to its SID as text; got {codes!r}."
            )
    return list(items.values()), list(items)


def _rows_of_sids(items: Mapping[Any, Any], parser: TextParser) -> tuple[list[Any], list[Any]]:
    sids, ids = [], []
    for sid, value in items.items():
        codes = parser.codes(sid, f"key {sid!r}")
        for item in value if _is_list(value) else [value]:
            if item is None or (isinstance(item, (Mapping, Sequence)) and not isinstance(item, str)):
                raise CatalogError(f"SID {sid!r} must map to an item id, or to a list of item ids; got {value!r}.")
            sids.append(codes)
            ids.append(item)
    return sids, ids


def _is_list(value: Any) -> bool:
    return isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str)
