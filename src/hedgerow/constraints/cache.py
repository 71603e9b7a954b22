"""SetCache: the latest results of an index that are expensive to compute for constraint sets."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any, TypeVar

from hedgerow.constraints.alive import Alive
from hedgerow.index.trie import Trie

# Limits of each kind of entry, per index.
MAX_BYTES = 2**28
MAX_RULES = 256
MAX_STACKS = 4

Value = TypeVar("Value")


class SetCache:
    """Cache of one index, which several threads can use. The entries that were used least recently are dropped first.

    It holds the alive nodes of sets, the sets of SQL expressions, and the stacked words of batches on devices.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._alive: OrderedDict[bytes, Alive] = OrderedDict()
        self._rules: OrderedDict[Any, Any] = OrderedDict()
        self._stacks: OrderedDict[tuple[Any, tuple[bytes, ...]], Any] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as an empty cache: its content can be computed again."""
        return SetCache, ()

    def alive(self, key: bytes, compute: Callable[[], Alive]) -> Alive:
        """Alive nodes of the items with this digest; computed if they are not in the cache."""
        return self._get(self._alive, key, compute, lambda alive: alive.nbytes)

    def rule(self, key: Any, compute: Callable[[], Value]) -> Value:
        """Constraint set of a rule; computed if it is not in the cache."""
        return self._get(self._rules, key, compute, lambda items: items._words.nbytes, MAX_RULES)

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
            for (stack_device, stack_keys), words in reversed(self._stacks.items()):
                if stack_device == device and len(stack_keys) == len(keys) and set(stack_keys) >= set(keys):
                    self._stacks.move_to_end((stack_device, stack_keys))
                    return stack_keys, words
        words = compute()
        with self._lock:
            self._stacks[device, keys] = words
            while len(self._stacks) > MAX_STACKS:
                self._stacks.popitem(last=False)
        return keys, words

    def _get(
        self,
        entries: OrderedDict[Any, Any],
        key: Any,
        compute: Callable[[], Any],
        bytes_of: Callable[[Any], int],
        max_entries: float = float("inf"),
    ) -> Any:
        with self._lock:
            if key in entries:
                entries.move_to_end(key)
                return entries[key]
        value = compute()
        with self._lock:
            entries[key] = value
            # An entry larger than the limit is kept alone.
            while len(entries) > max_entries or (len(entries) > 1 and sum(map(bytes_of, entries.values())) > MAX_BYTES):
                entries.popitem(last=False)
        return value


def cache_of(index: Trie) -> SetCache:
    """The cache of an index; it is empty at first."""
    return index.__dict__.setdefault("_set_cache", SetCache())
