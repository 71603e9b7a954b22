"""ConstraintSet: a subset of an index's items, made from a mask, item ids or a function of the attributes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np

from hedgerow._read_only import ReadOnlyArrays
from hedgerow.constraints.alive import Alive, find_alive
from hedgerow.constraints.cache import cache_of
from hedgerow.errors import ConstraintError
from hedgerow.index.bits import bits_at, count_bits, unpacked
from hedgerow.index.level import WORD_BITS
from hedgerow.index.lookup import row_of_id
from hedgerow.index.trie import Trie

KEY_BYTES = 16
MAX_NAME = 200


@dataclass(frozen=True, eq=False)
class Combined:
    """The items of a combination of sets, as the cache of the index holds them.

    Attributes:
        words: [ceil(N / 32)] uint32, the words of the items.
    """

    words: np.ndarray

    @cached_property
    def key(self) -> bytes:
        """Digest of the items."""
        return key_of(self.words)

    @property
    def nbytes(self) -> int:
        """Bytes of the words."""
        return self.words.nbytes


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
        return key_of(self._words) if self._combined is None else self._combined.key

    @property
    def _expression(self) -> bytes:
        """Digest of the items, or of how they were combined, which is known before the items."""
        return self.__dict__.get("_combination", None) or self._key

    @property
    def _combined(self) -> Combined | None:
        """The entry of the cache that the items come from, if the set is a combination."""
        return self.__dict__.get("_entry")

    @property
    def _stack_key(self) -> bytes:
        """What the set is called in the stacks of a device."""
        return self._key

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without what can be computed again."""
        kept = ("index", "_words", "name", "_intersected")
        return {name: self.__dict__[name] for name in kept if name in self.__dict__}

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
        made = ConstraintSet(self.index, self._words, name)
        kept = ("_combination", "_entry", "_key")
        made.__dict__.update({key: self.__dict__[key] for key in kept if key in self.__dict__})
        return made

    def __and__(self, other: ConstraintSet) -> ConstraintSet:
        both = self._with(other, "&", np.bitwise_and)
        if both is not NotImplemented:
            distinct = {part._stack_key: part for part in (*self._parts, *other._parts)}
            both.__dict__["_intersected"] = tuple(distinct.values())
        return both

    def __or__(self, other: ConstraintSet) -> ConstraintSet:
        return self._with(other, "|", np.bitwise_or)

    def __xor__(self, other: ConstraintSet) -> ConstraintSet:
        return self._with(other, "^", np.bitwise_xor)

    def __sub__(self, other: ConstraintSet) -> ConstraintSet:
        return self._with(other, "-", lambda words, other_words: words & ~other_words)

    def __invert__(self) -> ConstraintSet:
        def compute() -> np.ndarray:
            words = ~self._words
            if past := self.index.num_items % WORD_BITS or (0 if self.index.num_items else WORD_BITS):
                words[-1] &= np.uint32((1 << past % WORD_BITS) - 1)
            return words

        return self._made("~", [self._expression], compute, name_of(None, "~", self))

    def __contains__(self, item_id: object) -> bool:
        row = row_of_id(self.index, item_id)
        return row is not None and bool(bits_at(self._words, np.asarray([row]))[0])

    def __len__(self) -> int:
        return self.num_items

    def _with(self, other: Any, sign: str, operation: Callable[..., Any]) -> ConstraintSet:
        if not isinstance(other, ConstraintSet):
            return NotImplemented
        if other.index is not self.index:
            raise ConstraintError(
                f"the constraint sets {self.name!r} and {other.name!r} belong to two index objects. Make both from one "
                "index with index.constraint(...) or index.where(...). Two loads of one file give two index objects."
            )
        parts = [self._expression, other._expression]
        # Only a difference depends on the order.
        name = name_of(self, sign, other)
        return self._made(
            sign, parts if sign == "-" else sorted(parts), lambda: operation(self._words, other._words), name
        )

    def _made(self, sign: str, parts: Sequence[bytes], compute: Callable[[], np.ndarray], name: str) -> ConstraintSet:
        """The combination of sets whose expressions are `parts`, computed once for each expression."""
        combination = blake2b(b"".join([sign.encode(), *parts]), digest_size=KEY_BYTES).digest()
        entry = cache_of(self.index).rule(("combination", combination), lambda: Combined(compute()))
        made = ConstraintSet(self.index, entry.words, name)
        made.__dict__.update(_combination=combination, _entry=entry)
        return made

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
    return blake2b(words.data, digest_size=KEY_BYTES).digest()


def name_of(first: ConstraintSet | None, sign: str, second: ConstraintSet) -> str:
    """The name of a combination. Those of long chains are cut."""
    name = f"{sign}{_as_part(second.name)}"
    if first is not None:
        name = f"{_as_part(first.name)} {sign} {_as_part(second.name)}"
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 3]}..."


def _as_part(name: str) -> str:
    """A name as part of a longer one: in parentheses if it is an expression itself."""
    return name if re.fullmatch(r"~?[\w.:-]+", name) else f"({name})"
