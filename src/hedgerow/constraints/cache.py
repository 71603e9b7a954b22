"""SetCache: the latest results of an index that are expensive to compute for constraint sets."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from sys import getsizeof
from threading import Lock
from typing import Any, Generic, TypeVar

from hedgerow.constraints.alive import Alive
from hedgerow.index.trie import Trie

# Limits of each kind of entry, per index.
MAX_BYTES = 2**28
MAX_RULES = 256
MAX_STACKS = 4
# Bytes of an entry besides its arrays, containers and texts: attributes, small integers, its place in the cache.
ENTRY_BYTES = 512
# Bytes of an array besides its values.
ARRAY_BYTES = 128

Value = TypeVar("Value")


def memory_of(value: Any) -> int:
    """Bytes of arrays, and of containers and texts with all that they hold. Arrays of devices count as well."""
    found: dict[int, int] = {}
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if id(each) in found:
            continue
        found[id(each)] = getsizeof(each, 0)
        if isinstance(each, dict):
            waiting += [*each.keys(), *each.values()]
        elif isinstance(each, tuple | list):
            waiting += each
        elif isinstance(each, Alive):
            waiting += [each.leaves, each.levels, each.placed, each.before]
        elif hasattr(each, "nbytes"):
            found[id(each)] = max(found[id(each)], each.nbytes + ARRAY_BYTES)
    return sum(found.values())


class _Entries(Generic[Value]):
    """Entries in the order of their last use, and the sum of their bytes. The caller holds the lock."""

    def __init__(self) -> None:
        self.values: OrderedDict[Any, Value] = OrderedDict()
        self.bytes_of: dict[Any, int] = {}
        self.total = 0

    def measure(self, key: Any) -> None:
        """Count the bytes of an entry, which can have grown since."""
        size = memory_of([key, self.values[key]]) + ENTRY_BYTES
        self.total += size - self.bytes_of.get(key, 0)
        self.bytes_of[key] = size

    def touch(self, key: Any) -> Value:
        """The entry, as the one that was used last."""
        self.values.move_to_end(key)
        self.measure(key)
        return self.values[key]

    def add(self, key: Any, value: Value, max_entries: float) -> None:
        """Add an entry, and drop those that were used least recently. An entry beyond the limit is kept alone."""
        if self.values:
            # Its arrays were placed on a device after it was added.
            self.measure(next(reversed(self.values)))
        self.values[key] = value
        self.touch(key)
        while len(self.values) > 1 and (len(self.values) > max_entries or self.total > MAX_BYTES):
            oldest, _ = self.values.popitem(last=False)
            self.total -= self.bytes_of.pop(oldest)


class SetCache:
    """Cache of one index, which several threads can use. The entries that were used least recently are dropped first.

    It holds the alive nodes of sets, the items of SQL expressions, and the stacked words of batches on devices. Nothing
    in it refers to the index, so that the index is freed with its last user.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._alive: _Entries[Alive] = _Entries()
        self._rules: _Entries[Any] = _Entries()
        self._stacks: _Entries[Any] = _Entries()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as an empty cache: its content can be computed again."""
        return SetCache, ()

    def alive(self, key: bytes, compute: Callable[[], Alive]) -> Alive:
        """Alive nodes of the items with this digest; computed if they are not in the cache."""
        return self._get(self._alive, key, compute)

    def rule(self, key: Any, compute: Callable[[], Value], keep: Callable[[], bool] = lambda: True) -> Value:
        """Items of a rule; computed if it is not in the cache, and then kept if `keep()` is true."""
        return self._get(self._rules, key, compute, MAX_RULES, keep)

    def stack(self, device: Any, keys: tuple[bytes, ...], compute: Callable[[], Any]) -> tuple[tuple[bytes, ...], Any]:
        """Stacked words of the sets of a batch on a device; computed if no stack in the cache has all these sets.

        Args:
            device: identifies the device and the layout of the words there.
            keys: the digests of the sets, in the order in which `compute` stacks them.
            compute: stacks the words.

        Returns:
            The digests of the sets in the order of the stack, and the stack. It has as many sets as `keys`, but may
            have others besides them, in another order.
        """
        with self._lock:
            for stack_device, stack_keys in reversed(self._stacks.values):
                if stack_device == device and len(stack_keys) == len(keys) and set(stack_keys) >= set(keys):
                    return stack_keys, self._stacks.touch((stack_device, stack_keys))
        words = compute()
        with self._lock:
            self._stacks.add((device, keys), words, MAX_STACKS)
        return keys, words

    def _get(
        self,
        entries: _Entries[Any],
        key: Any,
        compute: Callable[[], Any],
        max_entries: float = float("inf"),
        keep: Callable[[], bool] = lambda: True,
    ) -> Any:
        with self._lock:
            if key in entries.values:
                return entries.touch(key)
        value = compute()
        if keep():
            with self._lock:
                entries.add(key, value, max_entries)
        return value


def cache_of(index: Trie) -> SetCache:
    """The cache of an index; it is empty at first."""
    return index.__dict__.setdefault("_set_cache", SetCache())
