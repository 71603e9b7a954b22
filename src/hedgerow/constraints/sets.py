"""ConstraintSet: a subset of an index's items, made from a mask, item ids or a function of the attributes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np

from hedgerow._arguments import check_choice
from hedgerow._read_only import ReadOnlyArrays
from hedgerow.constraints.alive import Alive, find_alive
from hedgerow.constraints.cache import cache_of
from hedgerow.constraints.masks import Order, mask_of
from hedgerow.errors import ConstraintError
from hedgerow.index.bits import bits_at, count_bits, packed, unpacked
from hedgerow.index.lookup import MISSING, Missing, as_ids, check_known, find_rows, row_of_id
from hedgerow.index.trie import Trie


@dataclass(frozen=True, eq=False, repr=False)
class ConstraintSet(ReadOnlyArrays):
    """A subset of an index's items: the items that a search may return.

    `TrieIndex.constraint`, `TrieIndex.where` and `TrieIndex.newest` make one. Sets of one index combine item by item:
    `a & b` (in both), `a | b` (in any), `a - b` (in the first only), `a ^ b` (in exactly one) and `~a` (not in it). If
    two items share a SID and one of them is in the set, a search returns only that one. `item_id in a` tests one item;
    it reads all ids, so use `a.mask` for many. Sets of the same items are equal, whatever their names are.

    Attributes:
        index: the index that the items belong to.
        name: a label for people.

    Examples:
        ```python
        import hedgerow as hr

        index = hr.build_index(hr.Catalog([[0, 1], [2, 0], [2, 2]], item_ids=["a", "b", "c"]))
        new, cheap = index.constraint(ids=["a", "b"]), index.constraint(ids=["b", "c"])
        assert new & cheap == index.constraint(ids=["b"])
        assert len(new | cheap) == 3 and "c" not in new - cheap
        assert (new ^ cheap).mask.tolist() == [True, False, True]
        ```
    """

    # _words: [ceil(N / 32)] uint32: bit n % 32 of word n // 32 is set if row n of the index is in the set.
    index: Trie
    _words: np.ndarray
    name: str

    def __post_init__(self) -> None:
        self._words.setflags(write=False)

    @property
    def _parts(self) -> tuple[ConstraintSet, ...]:
        """The sets of which this one is the intersection: an explanation names those that an item is not in."""
        return self.__dict__.get("_intersected", (self,))

    @cached_property
    def _key(self) -> bytes:
        """Digest of the items: equal for equal sets."""
        return key_of(self._words)

    @cached_property
    def _alive(self) -> Alive:
        """The nodes of the trie that have an item of the set below them; computed on first use."""
        return cache_of(self.index).alive(self._key, lambda: find_alive(self.index, self._words))

    @cached_property
    def num_items(self) -> int:
        """Number of items in the set."""
        return count_bits(self._words)

    @property
    def num_sids(self) -> int:
        """Number of distinct SIDs of the items in the set."""
        return count_bits(self._alive.leaves)

    @property
    def nodes_per_level(self) -> tuple[int, ...]:
        """Number of nodes per level that have an item of the set below them."""
        return tuple(map(count_bits, self._alive.levels))

    @property
    def mask(self) -> np.ndarray:
        """Bool [N], in the order of `index.item_ids`: whether each item is in the set."""
        return unpacked(self._words, self.index.num_items)

    @property
    def nbytes(self) -> int:
        """Bytes of the set on the host: the bits of its items and of the nodes."""
        is_shared = self._words is self._alive.leaves
        return self._alive.nbytes + (0 if is_shared else self._words.nbytes)

    def named(self, name: str) -> ConstraintSet:
        """Make the same set with another name.

        Examples:
            ```python
            import hedgerow as hr

            index = hr.build_index(hr.Catalog([[0, 1], [2, 0]]))
            assert index.constraint(ids=[1]).named("in stock").name == "in stock"
            ```
        """
        return ConstraintSet(self.index, self._words, name)

    def __and__(self, other: ConstraintSet) -> ConstraintSet:
        both = self._combined(other, "&", np.bitwise_and)
        if both is not NotImplemented:
            both.__dict__["_intersected"] = (*self._parts, *other._parts)
        return both

    def __or__(self, other: ConstraintSet) -> ConstraintSet:
        return self._combined(other, "|", np.bitwise_or)

    def __xor__(self, other: ConstraintSet) -> ConstraintSet:
        return self._combined(other, "^", np.bitwise_xor)

    def __sub__(self, other: ConstraintSet) -> ConstraintSet:
        return self._combined(other, "-", lambda words, other_words: words & ~other_words)

    def __invert__(self) -> ConstraintSet:
        all_items = packed(np.ones(self.index.num_items, bool))
        return ConstraintSet(self.index, self._words ^ all_items, f"~{_as_part(self.name)}")

    def __contains__(self, item_id: object) -> bool:
        row = row_of_id(self.index, item_id)
        return row is not None and bool(bits_at(self._words, np.asarray([row]))[0])

    def __len__(self) -> int:
        return self.num_items

    def _combined(self, other: Any, sign: str, operation: Callable[..., np.ndarray]) -> ConstraintSet:
        if not isinstance(other, ConstraintSet):
            return NotImplemented
        if other.index is not self.index:
            raise ConstraintError(
                f"the constraint sets {self.name!r} and {other.name!r} belong to two index objects. Make both from one "
                "index with index.constraint(...) or index.where(...). Two loads of one file give two index objects."
            )
        name = f"{_as_part(self.name)} {sign} {_as_part(other.name)}"
        return ConstraintSet(self.index, operation(self._words, other._words), name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConstraintSet) and self.index is other.index and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __bool__(self) -> bool:
        raise ConstraintError(
            "a constraint set has no truth value. Use len(constraint_set) > 0 to test for items, and &, |, -, ^, ~ "
            "instead of and, or, not."
        )

    def __repr__(self) -> str:
        size = f"{self.num_items:,} of {self.index.num_items:,} items" if self.num_items else "empty: no item"
        return f"ConstraintSet({self.name!r}, {size})"


def key_of(words: np.ndarray) -> bytes:
    """Digest of the items of a set."""
    return blake2b(words.tobytes(), digest_size=16).digest()


def _as_part(name: str) -> str:
    """A name as part of a longer one: in parentheses if it is an expression itself."""
    return name if re.fullmatch(r"~?[\w.:-]+", name) else f"({name})"


def constraint(index: Trie, mask: Any, ids: Any, order: Order, name: str | None, missing: Missing) -> ConstraintSet:
    """Make a constraint set of the index's items: see `TrieIndex.constraint`."""
    if (mask is None) == (ids is None):
        raise ConstraintError(
            "pass either a mask (or a function of the attributes) or ids, not both: index.constraint(mask) or "
            "index.constraint(ids=[...])."
        )
    check_choice(missing, "missing", MISSING, error=ConstraintError)
    if ids is not None:
        if order is not None:
            raise ConstraintError("order is the order of a mask; ids have any order. Omit order.")
        return ConstraintSet(index, packed(_mask_of_ids(index, ids, missing)), name or "ids")
    default = getattr(mask, "__name__", "function") if callable(mask) else "mask"
    return ConstraintSet(index, packed(mask_of(index, mask, order, missing)), name or default)


def _mask_of_ids(index: Trie, ids: Any, missing: Missing) -> np.ndarray:
    wanted = as_ids(index, ids, "ids", skip_too_large=missing == "ignore")
    rows = find_rows(index, wanted)
    if missing == "raise":
        check_known(rows, wanted, "ids", ConstraintError, " missing='ignore' skips such ids.")
    mask = np.zeros(index.num_items, bool)
    mask[rows[rows >= 0]] = True
    return mask
