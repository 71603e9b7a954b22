"""Constraint sets: subsets of an index's items, from a mask, item ids, a function of the attributes, or SQL."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from threading import Lock
from typing import Any, Literal

import numpy as np

from hedgerow._arguments import check_choice
from hedgerow.constraints.alive import alive_levels, leaf_bits
from hedgerow.errors import ConstraintError
from hedgerow.index.bits import bits_at, bits_before, count_bits, packed, rank_of, unpacked
from hedgerow.index.lookup import as_ids, check_known, lookup_of, row_of_id
from hedgerow.index.trie import Trie

Missing = Literal["raise", "ignore"]
# What an index remembers of sets that were made of it, so that the same set is not propagated twice.
REMEMBERED_BYTES = 2**28
REMEMBERED_RULES = 256
REMEMBERED_MIXES = 4


@dataclass(frozen=True, eq=False)
class Alive:
    """Which nodes of the trie are alive for a set; shared by all sets of the same items.

    Attributes:
        leaves: the words of the leaves.
        levels: L arrays: [ceil(E / 32)] uint32, bit n % 32 of word n // 32 for node n; of a dense level
            [P, ceil(C / 32)], the codes that lead to a node that is alive.
        placed: the same on devices, as they are asked for.
        before: by level (-1 for the items): how many bits are set before each word, as they are asked for.
    """

    leaves: np.ndarray
    levels: tuple[np.ndarray, ...]
    placed: dict[Any, tuple[Any, ...]] = field(default_factory=dict)
    before: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of the words; levels that share theirs count once."""
        return sum(array.nbytes for array in {id(array): array for array in (self.leaves, *self.levels)}.values())

    def count_below(self, at: int, words: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Returns how many bits of `words`, those of level `at` or (-1) of the items, are set below each place [R]."""
        if at not in self.before:
            self.before[at] = bits_before(words)
        return rank_of(words, self.before[at], places)


@dataclass(frozen=True, eq=False, repr=False)
class ConstraintSet:
    """Some of an index's items: what a request may be shown. Made by `Trie.constraint`, `where` and `newest`.

    Sets of one index combine by `&`, `|` and `~`, item by item, so that of two items that share a SID only the one in
    the set is found. Sets of the same items are equal, whatever they are called.

    Attributes:
        index: the index whose items these are.
        name: a label for people.
    """

    # [ceil(N / 32)] uint32: bit n % 32 of word n // 32 is set if row n of the index is in the set.
    index: Trie
    _words: np.ndarray
    name: str

    def __post_init__(self) -> None:
        self._words.setflags(write=False)

    @cached_property
    def _key(self) -> bytes:
        """A digest of the items: equal for equal sets."""
        return blake2b(self._words.tobytes(), digest_size=16).digest()

    @cached_property
    def num_items(self) -> int:
        """How many items are in the set."""
        return count_bits(self._words)

    @property
    def num_sids(self) -> int:
        """How many distinct SIDs they have."""
        return count_bits(self._alive.leaves)

    @property
    def nodes_per_level(self) -> tuple[int, ...]:
        """How many nodes of each level have an item of the set below them."""
        return tuple(map(count_bits, self._alive.levels))

    @property
    def mask(self) -> np.ndarray:
        """Bool [N], in the order of `index.item_ids`: whether each item is in the set."""
        return unpacked(self._words, self.index.num_items)

    @cached_property
    def _alive(self) -> Alive:
        """Which nodes of the trie have an item of the set below them; made when first used."""
        return memory_of(self.index).alive_of(self)

    @property
    def nbytes(self) -> int:
        """Bytes that the set takes on the host, items and nodes."""
        shared = self._words is self._alive.leaves
        return self._alive.nbytes + (0 if shared else self._words.nbytes)

    def named(self, name: str) -> ConstraintSet:
        """Returns the same set under another name."""
        return ConstraintSet(self.index, self._words, name)

    def __and__(self, other: ConstraintSet) -> ConstraintSet:
        return self._with(other, "&", np.bitwise_and)

    def __or__(self, other: ConstraintSet) -> ConstraintSet:
        return self._with(other, "|", np.bitwise_or)

    def __xor__(self, other: ConstraintSet) -> ConstraintSet:
        return self._with(other, "^", np.bitwise_xor)

    def __sub__(self, other: ConstraintSet) -> ConstraintSet:
        return self._with(other, "-", lambda mine, theirs: mine & ~theirs)

    def __contains__(self, item_id: object) -> bool:
        row = row_of_id(self.index, item_id)
        return row is not None and bool(bits_at(self._words, np.asarray([row]))[0])

    def __len__(self) -> int:
        return self.num_items

    def __invert__(self) -> ConstraintSet:
        every = packed(np.ones(self.index.num_items, bool))
        return ConstraintSet(self.index, self._words ^ every, f"~{_inner(self.name)}")

    def _with(self, other: Any, sign: str, operation: Callable[..., np.ndarray]) -> ConstraintSet:
        if not isinstance(other, ConstraintSet):
            return NotImplemented
        if other.index is not self.index:
            raise ConstraintError(
                f"{self.name!r} and {other.name!r} belong to two index objects, and a set is rows of its own; a file "
                "that is loaded twice is two objects, too. Make both of one: index.constraint(...), index.where(...)."
            )
        name = f"{_inner(self.name)} {sign} {_inner(other.name)}"
        return ConstraintSet(self.index, operation(self._words, other._words), name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConstraintSet) and self.index is other.index and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __bool__(self) -> bool:
        raise ConstraintError("whether a set is 'true' is not said: ask for its num_items, or combine sets by &, |, ~.")

    def __repr__(self) -> str:
        many = f"{self.num_items:,} of {self.index.num_items:,} items" if self.num_items else "empty: no item"
        return f"ConstraintSet({self.name!r}, {many})"


def _inner(name: str) -> str:
    """Returns a name as a part of another: in parentheses where it has parts itself, as SQL and mixes of sets do."""
    return name if re.fullmatch(r"~?[\w.:-]+", name) else f"({name})"


class Memory:
    """What an index remembers of its latest sets.

    The alive nodes by the items, the sets of rules, and the words of mixes on a device.
    """

    def __init__(self) -> None:
        self.lock = Lock()
        self.alive: OrderedDict[bytes, Alive] = OrderedDict()
        self.rules: OrderedDict[Any, ConstraintSet] = OrderedDict()
        self.stacks: OrderedDict[Any, Any] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles as nothing: what is remembered can be made again."""
        return Memory, ()

    def alive_of(self, items: ConstraintSet) -> Alive:
        """Returns the alive nodes of a set, as they were made for an equal one, or made now."""
        with self.lock:
            if items._key in self.alive:
                self.alive.move_to_end(items._key)
                return self.alive[items._key]
        leaves = leaf_bits(items.index, items._words)
        leaves.setflags(write=False)
        made = Alive(leaves, alive_levels(items.index, leaves))
        with self.lock:
            self.alive[items._key] = made
            while len(self.alive) > 1 and sum(alive.nbytes for alive in self.alive.values()) > REMEMBERED_BYTES:
                self.alive.popitem(last=False)
        return made

    def rule(self, key: Any, make: Callable[[], ConstraintSet]) -> ConstraintSet:
        """Returns the set of a rule that was asked before, or makes it."""
        with self.lock:
            if key in self.rules:
                self.rules.move_to_end(key)
                return self.rules[key]
        made = make()
        with self.lock:
            self.rules[key] = made
            while len(self.rules) > REMEMBERED_RULES or (
                len(self.rules) > 1 and sum(items._words.nbytes for items in self.rules.values()) > REMEMBERED_BYTES
            ):
                self.rules.popitem(last=False)
        return made

    def stack(self, place: Any, keys: tuple[bytes, ...], make: Callable[[], Any]) -> tuple[tuple[bytes, ...], Any]:
        """Returns the words of a mix of sets, and the keys of those in their order: of the mix, or of one as large.

        Args:
            place: where the words are.
            keys: of the mix.
            make: makes the words where none of the latest mixes has all of these sets.
        """
        with self.lock:
            for (there, held), words in reversed(self.stacks.items()):
                if there == place and len(held) == len(keys) and set(held) >= set(keys):
                    self.stacks.move_to_end((there, held))
                    return held, words
        made = make()
        with self.lock:
            self.stacks[place, keys] = made
            while len(self.stacks) > REMEMBERED_MIXES:
                self.stacks.popitem(last=False)
        return keys, made


def memory_of(index: Trie) -> Memory:
    """Returns what an index remembers of its sets; it begins with nothing."""
    return index.__dict__.setdefault("_sets", Memory())


def constraint(index: Trie, mask: Any, ids: Any, name: str | None, missing: Missing) -> ConstraintSet:
    """Returns a set of the index's items: `Trie.constraint`."""
    if (mask is None) == (ids is None):
        raise ConstraintError(
            "give a mask (or a function of the attributes) or ids, and not both: index.constraint(mask), "
            "index.constraint(ids=[...])."
        )
    if ids is not None:
        return ConstraintSet(index, packed(_mask_of_ids(index, ids, missing)), name or "ids")
    if callable(mask):
        named = name or getattr(mask, "__name__", "function")
        return ConstraintSet(
            index, packed(_checked_mask(index, _asked(index, mask), "what the function returned")), named
        )
    return ConstraintSet(index, packed(_checked_mask(index, mask, "the mask")), name or "mask")


def _mask_of_ids(index: Trie, ids: Any, missing: Missing) -> np.ndarray:
    check_choice(missing, "missing", ("raise", "ignore"), error=ConstraintError)
    wanted = as_ids(index, ids, "ids")
    rows = lookup_of(index).rows_of(wanted)
    if missing == "raise":
        check_known(rows, wanted, "ids", ConstraintError, " missing='ignore' skips such ids.")
    mask = np.zeros(index.num_items, bool)
    mask[rows[rows >= 0]] = True
    return mask


def _asked(index: Trie, function: Callable[[Any], Any]) -> Any:
    try:
        return function(index.attributes)
    except Exception as error:
        names = index.attributes.column_names
        raise ConstraintError(
            f"the function raised {type(error).__name__}: {error}. It is given index.attributes, an Arrow table with "
            f"the columns {', '.join(names) or '(none)'}; for NumPy's operators: "
            f"lambda attributes: np.asarray(attributes[{(names or ['price'])[0]!r}]) == ..."
        ) from error


def _checked_mask(index: Trie, mask: Any, what: str) -> np.ndarray:
    if np.ma.is_masked(mask):
        raise ConstraintError(f"{what} has masked entries; say of each item whether it is in: mask.filled(False).")
    if hasattr(mask, "null_count") and mask.null_count:
        raise ConstraintError(
            f"{what} has {mask.null_count:,} nulls; say of each item whether it is in: fill_null(False)."
        )
    if hasattr(mask, "detach"):
        mask = mask.detach().cpu()
    array = np.asarray(mask)
    if array.dtype != bool or array.shape != (index.num_items,):
        raise ConstraintError(
            f"{what} must be bool [{index.num_items}], one for each item in the order of index.item_ids and "
            f"index.attributes, which is not the catalog's; got {array.dtype} {list(array.shape)}. Item ids "
            "(ids=[...]), a function of the attributes and index.where(SQL) need no order."
        )
    return array
