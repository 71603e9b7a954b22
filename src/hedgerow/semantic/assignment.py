"""Assignment of SIDs to codes: what happens to items with the same codes, and which items keep their SIDs."""

from __future__ import annotations

from typing import Any

import numpy as np

from hedgerow._arguments import check_choice, whole_number
from hedgerow.catalog.catalog import Catalog
from hedgerow.errors import ArgumentError
from hedgerow.semantic.codebooks import Codebooks, rotated
from hedgerow.semantic.collisions import check_size, free_last_codes, nearest_free_codes
from hedgerow.semantic.vectors import as_array
from hedgerow.trie_index import TrieIndex

ON_COLLISION = (None, "keep", "separate", "nearest")


def checked_policy(quantizer: Codebooks, on_collision: str | None, items_per_sid: int) -> str:
    """The policy for items with the same codes. Default: "separate" with deduplication codes, otherwise "keep".

    Raises:
        ArgumentError: there is no such policy, or the quantizer does not fit it.
    """
    check_choice(on_collision, "on_collision", ON_COLLISION)
    separates = quantizer.deduplication_codes is not None
    policy = on_collision or ("separate" if separates else "keep")
    if (policy == "separate") != separates:
        way = "deduplicating(codes)" if policy == "separate" else "deduplicating(None)"
        has = "has" if separates else "has no"
        raise ArgumentError(f"on_collision={policy!r}: this quantizer {has} deduplication codes. Use quantizer.{way}.")
    check_items_per_sid(policy, items_per_sid)
    return policy


def check_items_per_sid(policy: str | None, items_per_sid: int) -> None:
    """Check the maximum number of items of a SID.

    Raises:
        ArgumentError: it is not a positive integer, or not 1 for a policy other than "nearest".
    """
    if whole_number(items_per_sid, "items_per_sid") != 1 and policy != "nearest":
        raise ArgumentError(f"items_per_sid is for on_collision='nearest'; got on_collision={policy!r}.")


def sids_of_codes(
    quantizer: Codebooks,
    vectors: np.ndarray,
    codes: np.ndarray,
    policy: str,
    *,
    taken: np.ndarray | None = None,
    items_per_sid: int = 1,
    rows: np.ndarray | None = None,
) -> np.ndarray:
    """The SIDs int32 [R, L], or [R, L + 1] with deduplication codes, of items with the codes [R, L].

    Args:
        quantizer: the quantizer.
        vectors: float32 [R, D], the embeddings of the items.
        codes: int32 [R, L].
        policy: as `checked_policy` returns it.
        taken: the SIDs of other items, of the same length.
        items_per_sid: the maximum number of items of a SID, for "nearest".
        rows: the row of each item in messages. Default: 0, 1, ...

    Raises:
        ArgumentError: no free code is left for an item.
    """
    if policy == "keep":
        return codes
    rows = np.arange(len(codes)) if rows is None else rows
    if policy == "separate":
        assert quantizer.deduplication_codes is not None
        last = free_last_codes(codes, taken)
        check_size(codes, last, quantizer.deduplication_codes, rows)
        return np.column_stack([codes, last.astype(np.int32)])
    residuals = vectors.copy() if quantizer.rotation is None else rotated(vectors, quantizer.rotation)
    for level, codebook in enumerate(quantizer.codebooks[:-1]):
        residuals[:, quantizer.dimensions(level)] -= codebook[codes[:, level]]
    parts = residuals[:, quantizer.dimensions(quantizer.num_levels - 1)]
    last = nearest_free_codes(codes, parts, quantizer.codebooks[-1], taken, items_per_sid, rows)
    return np.column_stack([codes[:, :-1], last.astype(np.int32)])


def kept_sids(quantizer: Codebooks, ids: Any, keep: Any, num_rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows of items that an index or a catalog has already, and their SIDs.

    Returns:
        Whether each row is such an item [R], the SIDs of these rows in their order, and all SIDs of `keep`.

    Raises:
        ArgumentError: `keep` is neither an index nor a catalog with item ids, or its SIDs are not of this quantizer.
        CatalogError: `ids` are not item ids of the type of those of `keep`.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from hedgerow.catalog.columns import as_column, as_type, checked_item_ids, sortable

    if (ids is None) != (keep is None):
        raise ArgumentError("ids= and keep= go together: the ids of the items, and the index of the published items.")
    if not isinstance(keep, (TrieIndex, Catalog)) or (isinstance(keep, Catalog) and not keep.has_item_ids):
        raise ArgumentError(f"keep must be an index, or a catalog with item ids; got {type(keep).__name__}.")
    every = checked_sids(quantizer, keep, "keep")
    published = as_column(keep.item_ids, "keep")
    ids = as_type(checked_item_ids(ids, num_rows), pa.field("keep: item_id", published.type))
    rows = pc.index_in(sortable(ids), value_set=sortable(published))  # pyright: ignore[reportAttributeAccessIssue]
    found = rows.is_valid().to_numpy(zero_copy_only=False)
    if isinstance(keep, TrieIndex):
        sids = keep.sids_of(ids.filter(pa.array(found)))
    else:
        sids = keep.sids[rows.drop_null().to_numpy()]
    return found, sids, every


def checked_sids(quantizer: Codebooks, sids: Any, name: str) -> np.ndarray:
    """The SIDs of an index, a catalog, `SemanticIds` or an array, as int64 [items, L], or [items, L + 1].

    Raises:
        ArgumentError: they are not SIDs of this quantizer.
    """
    separates = quantizer.deduplication_codes is not None
    sizes = (*quantizer.codebook_sizes, *((quantizer.deduplication_codes,) if separates else ()))
    own_sizes = tuple(getattr(sids, "codebook_sizes", sizes))
    values = getattr(sids, "sids", sids)
    matrix = as_array(values() if callable(values) else values, name)
    if matrix.ndim != 2 or matrix.shape[1] != len(sizes) or matrix.dtype.kind not in "iu":
        including = ", including the deduplication code" if separates else ""
        raise ArgumentError(
            f"{name} must be SIDs of {len(sizes)} codes{including}: integers [items, {len(sizes)}]; got {matrix.dtype} "
            f"of shape {matrix.shape}."
        )
    if own_sizes != sizes:
        raise ArgumentError(
            f"{name} has codebook_sizes {list(own_sizes)}, but SIDs of this quantizer have {list(sizes)}. Pass SIDs "
            f"that this quantizer assigned; if {name} is a catalog or an index, build it with these codebook_sizes."
        )
    wide = matrix.astype(np.int64)
    outside = (wide < 0) | (wide >= np.asarray(sizes))
    if outside.any():
        row, level = np.argwhere(outside)[0].tolist()
        raise ArgumentError(
            f"{name}, row {row}, level {level}: code {wide[row, level]} is not one of the quantizer's "
            f"{sizes[level]:,}. Pass SIDs that this quantizer assigned."
        )
    return wide
