"""TrieIndex: the public index class."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow.candidates import CandidateIndex, candidate_index
from hedgerow.catalog.constructors import ITEM_ID
from hedgerow.constraints.masks import Order, mask_of
from hedgerow.constraints.requests import Exclusions, Sets, batch_rules
from hedgerow.constraints.ruled import RuledTrie
from hedgerow.constraints.sets import ConstraintSet
from hedgerow.decode.beams import Beams
from hedgerow.decode.capacity import Capacity
from hedgerow.decode.device import DeviceIndex, to_device
from hedgerow.decode.prepared import PreparedConstraints
from hedgerow.errors import ArgumentError, ConstraintError
from hedgerow.index import attributes, describe, files
from hedgerow.index import merge as merging
from hedgerow.index.attributes import NewAttributes
from hedgerow.index.build import DenseLevels
from hedgerow.index.locks import LOCK_TIMEOUT
from hedgerow.index.lookup import Missing, known_rows, leaves_of, rows_of_ids
from hedgerow.index.trie import Trie
from hedgerow.picking import OrderBy, Picking
from hedgerow.results import Results, batch_results, check_finished


class TrieIndex(RuledTrie):
    """The index of a catalog: its SIDs as a flat trie, and the items of its leaves (STATIC, section 4).

    Created by `build_index`, `load_index`, `merge` and `filter`. It is immutable; its arrays are read-only. Items are
    stored in the order of their SIDs; items that share a SID are in the order of their ids. `item_ids` and
    `attributes` have that order. `len(index)` is the number of items.

    Attributes:
        levels: L levels, from the root.
        leaf_start: [S + 1] int32: the items of leaf s are the rows leaf_start[s] to leaf_start[s + 1] - 1.
            None if no or few items share a SID.
        leaf_forks: [N - S] int32, ascending: the leaf of each item that is not the first item of its leaf. None if
            there is no such item, or if leaf_start is stored.

    Examples:
        ```python
        import hedgerow as hr

        catalog = hr.Catalog([[0, 1], [2, 0]], item_ids=["a", "b"], attributes={"price": [3, 9]})
        index = hr.build_index(catalog)
        assert len(index) == 2
        assert index.contains([[0, 1], [0, 0]]).tolist() == [True, False]
        assert index.allowed_codes([2]).tolist() == [0]
        ```
    """

    @classmethod
    def _of(cls, trie: Trie) -> TrieIndex:
        if isinstance(trie, TrieIndex):
            return trie
        return cls(trie.levels, trie.leaf_start, trie.leaf_forks, trie._load_items, _load_order=trie._load_order)

    # How an index whose files are mapped is pickled: the function that loads it again, and its arguments.
    _reduced: tuple[Any, ...] | None = None

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle an index whose files are mapped as their folder and checksum, another one with all its arrays."""
        return self._reduced or super().__reduce_ex__(protocol)

    def __len__(self) -> int:
        return self.num_items

    def sids_of(self, item_ids: Any) -> np.ndarray:
        """Looks up the SIDs of items.

        Args:
            item_ids: R item ids: a sequence, or a NumPy, Arrow, pandas or Polars column.

        Returns:
            [R, L] int64; -1 after the end of a ragged SID.

        Raises:
            ArgumentError: an id is not in the index, or not of the type of its ids.

        Examples:
            ```python
            import hedgerow as hr

            index = hr.build_index(hr.Catalog([[0, 1], [2, 0]], item_ids=["a", "b"]))
            assert index.sids_of(["b", "a"]).tolist() == [[2, 0], [0, 1]]
            ```
        """
        return self.sids(leaves_of(self, known_rows(self, item_ids, "item_ids", error=ArgumentError)))

    def rows(self, ids: Any, *, missing: Missing = "raise") -> np.ndarray:
        """Look up the rows of items: their positions in `item_ids`, `attributes` and the masks of constraint sets.

        Args:
            ids: R item ids: a sequence, or a NumPy, Arrow, pandas or Polars column.
            missing: "raise" an error for ids that are not in the index, or "ignore" them: their row is -1.

        Returns:
            [R] int64.

        Raises:
            ArgumentError: an id is not in the index, or not of the type of its ids.

        Examples:
            ```python
            import hedgerow as hr

            index = hr.build_index(hr.Catalog([[0, 1], [2, 0]], item_ids=["a", "b"]))
            assert index.rows(["b", "a", "b"]).tolist() == [1, 0, 1]
            assert index.rows(["b", "z"], missing="ignore").tolist() == [1, -1]
            ```
        """
        return rows_of_ids(self, ids, missing)

    def candidates(
        self, candidates: Sequence[Any], *, constraints: Sets = None, exclude: Exclusions = None
    ) -> CandidateIndex:
        """Create an index of a batch in which each request has only its candidates.

        Use it for short lists: what is in stock near a user, or what another retriever found. The cost grows with the
        lists, not with the catalog. For large sets that many requests share, use `constraint`.

        Args:
            candidates: for each of B requests the ids of its candidates. Ids that no item has are ignored.
            constraints: one constraint set for all requests, or for each request its set or None. Candidates outside
                of it are left out.
            exclude: for each request the ids or the constraint set of items to leave out, or None.

        Raises:
            ConstraintError: a request has no list, a set belongs to another index, the lists do not fit each other, or
                ids are not of the type of the index's ids.

        Examples:
            ```python
            import hedgerow as hr

            index = hr.build_index(hr.Catalog([[0, 1], [2, 0], [2, 2]], item_ids=["a", "b", "c"]))
            candidates = index.candidates([["a", "c"], ["b", "c"]], exclude=[None, ["c"]])
            assert [rows.tolist() for rows in candidates.rows] == [[0, 2], [1]]
            ```
        """
        if not hasattr(candidates, "__len__") or not len(candidates):
            raise ConstraintError(
                f"candidates must contain one list of item ids per request; got {candidates!r:.100}. For one request: "
                "[ids]."
            )
        rules = batch_rules(self, len(candidates), constraints, exclude, candidates)
        missing = [request for request in range(rules.batch_size) if rules.candidates_of(request) is None]
        if missing:
            raise ConstraintError(
                f"request {missing[0]} has no candidates. Pass a list of item ids for each request; [] for none."
            )
        return candidate_index(rules)

    def results(
        self,
        beams: Beams,
        *,
        constraints: Sets = None,
        exclude: Exclusions = None,
        k: int | None = None,
        order_by: OrderBy = None,
        caps: Mapping[str, int] | None = None,
    ) -> list[Results]:
        """Map finished beams to items: one `Results` per request, best first, from its live beams.

        Beams of an index with other SIDs are refused. Indexes with the same SIDs and other item ids cannot be told
        apart: keep the beams and their index together.

        Args:
            beams: the beams after the last level.
            constraints: the constraint sets of the search. Of items that share a SID, only those in the request's
                set are returned.
            exclude: the excluded item ids of the search. They are not returned.
            k: the maximum number of items per request. Default: all.
            order_by: the attribute that orders the items of one SID, largest first, nulls last; or an attribute and a
                direction, `("price", "ascending")`. Default: the order of the item ids.
            caps: attribute name -> the maximum number of items with the same value, counted in rank order. An item
                with a list counts once for each entry; null values are not counted.

        Raises:
            ArgumentError: the beams are not finished or belong to another index, or k or a cap is not a positive
                integer.
            ConstraintError: there is no such attribute, or as for `prepare_constraints`.

        Examples:
            ```python
            import numpy as np
            import hedgerow as hr

            index = hr.build_index(hr.Catalog([[0, 1], [2, 0]], codebook_sizes=3, item_ids=["a", "b"]))
            beams = hr.beam_search(
                index, lambda beams: np.zeros((*beams.states.shape, 3)), batch_size=1, beam_width=5
            )
            assert index.results(beams, k=1)[0].item_ids == ["a"]
            ```
        """
        picking = Picking(k, order_by, caps)
        check_finished(self, beams)
        if isinstance(constraints, PreparedConstraints):
            raise ConstraintError(
                "results needs constraint sets, but these constraints are prepared for a device. Pass the constraint "
                "sets that they were prepared from."
            )
        return batch_results(self, beams, batch_rules(self, len(beams.states), constraints, exclude), picking)

    def filter(self, mask: Any, *, order: Order = None, dense_levels: DenseLevels = "auto") -> TrieIndex:
        """Build the index of the items of a set, or of those where a mask is true, without sorting.

        The result equals `build_index` of the filtered catalog, byte for byte.

        Args:
            mask: a constraint set of this index, for example `index.where("year >= 2000")`; or a mask, as for
                `constraint`.
            order: as for `constraint`.
            dense_levels: as for `build_index`.

        Raises:
            ArgumentError: `mask` is a constraint set of another index or no mask, as for `constraint`; or as for
                `build_index`.

        Examples:
            ```python
            import hedgerow as hr

            index = hr.build_index(hr.Catalog([[0, 1], [2, 0]], item_ids=["a", "b"]))
            assert index.filter(index.constraint(ids=["a"])).item_ids.to_pylist() == ["a"]
            ```
        """
        if isinstance(mask, ConstraintSet):
            if mask.index is not self:
                raise ArgumentError(
                    f"{mask!r} is a set of another index object. Make it from this one. Two loads of one file give two "
                    "index objects."
                )
            keep = mask.mask
        else:
            keep = mask_of(self, mask, order, error=ArgumentError)
        return TrieIndex._of(merging.filter_trie(self, keep, dense_levels=dense_levels))

    def with_attributes(
        self,
        table: Any = None,
        *,
        item_id: str = ITEM_ID,
        new_attributes: NewAttributes = "error",
        drop: Collection[str] = (),
    ) -> TrieIndex:
        """Make the index in which attributes of some items differ. It shares the arrays of the trie with this one.

        Items and attributes that `table` does not contain stay as they are. A column widens if needed, as for `merge`.
        To change the type of a column in another way, drop it and add it: `drop=["price"], new_attributes="add"`.

        Args:
            table: a mapping of names to columns, an Arrow table, or a pandas or Polars frame: the column of item ids,
                and the attributes to change.
            item_id: the name of the column of item ids.
            new_attributes: for columns that this index does not have: "error"; "add" the attribute, which is null for
                items that `table` does not contain; or "drop" the column of `table`.
            drop: names of attributes to remove from the index, before `table` is applied.

        Raises:
            CatalogError: an id is not in the index, null, repeated or of another type; an attribute does not exist, or
                its values do not fit the type of the column.
            ArgumentError: there is nothing to change, `new_attributes` is something else, or `drop` is not a list.

        Examples:
            ```python
            import hedgerow as hr

            catalog = hr.Catalog([[0, 1], [2, 0]], item_ids=["a", "b"], attributes={"price": [3, 9]})
            index = hr.build_index(catalog)
            changed = index.with_attributes({"item_id": ["b"], "price": [8], "sale": [True]}, new_attributes="add")
            assert changed.attributes.to_pydict() == {"price": [3, 8], "sale": [None, True]}
            ```
        """
        changed = attributes.with_attributes(self, table, item_id, new_attributes, drop)
        return TrieIndex._of(changed)

    def to(self, backend: str, device: Any = None, *, capacity: Capacity | None = None) -> DeviceIndex:
        """Copies the trie to a device as arrays of a backend, ready for `step` and `beam_search`.

        Args:
            backend: "numpy", "torch" or "jax".
            device: where to put the arrays, in the backend's terms. Default: the backend's default device; for
                PyTorch, the CPU.
            capacity: the sizes to pad the arrays to: `hr.Capacity.of(index)`. All indexes that fit have the same
                shapes, so a step that is compiled for one runs on each of them.

        Raises:
            BackendError: the backend is unknown, or the device cannot be used.
            MissingDependencyError: the backend is not installed.
            ArgumentError: `capacity` is not a Capacity, or the index does not fit into it.

        Examples:
            ```python
            import hedgerow as hr

            device_index = hr.build_index(hr.Catalog([[0, 1], [2, 0]])).to("numpy")
            assert device_index.backend == "numpy"
            ```
        """
        if capacity is not None and not isinstance(capacity, Capacity):
            raise ArgumentError(
                f"capacity must be a Capacity or None; got {capacity!r}. Make one with hr.Capacity.of(index)."
            )
        return to_device(self, backend, device, capacity)

    def save(self, path: str | Path, *, lock_timeout: float = LOCK_TIMEOUT) -> None:
        """Write the index to the folder `path`, completely or not at all. An existing index is replaced.

        Args:
            path: the folder.
            lock_timeout: the seconds to wait for another process that writes to the folder. Default: 300.

        Raises:
            IndexFileError: `path` contains something other than an index, cannot be written or locked, or another
                process has written to it for longer than `lock_timeout`.

        Examples:
            ```python
            import hedgerow as hr

            hr.build_index(hr.Catalog([[0, 1], [2, 0]])).save("items.hedgerow")
            assert len(hr.load_index("items.hedgerow")) == 2
            ```
        """
        files.save_trie(self, path, lock_timeout=lock_timeout)

    def describe(self) -> str:
        """Formats a table of the levels as text: nodes, branch factors, representation and bytes.

        Examples:
            ```python
            import hedgerow as hr

            index = hr.build_index(hr.Catalog([[0, 1], [2, 0]]))
            assert "level" in index.describe()
            ```
        """
        return describe.describe(self)
