"""DeviceSet: a constraint set whose items are on a GPU or a TPU, copied to the host only where the host needs them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from hedgerow.constraints.sets import ConstraintSet, name_of
from hedgerow.errors import ConstraintError
from hedgerow.index.bits import packed
from hedgerow.index.lookup import Missing
from hedgerow.index.trie import Trie


def is_on_device(array: Any) -> bool:
    """Whether a mask or rows are a tensor of PyTorch or an array of JAX on a device other than the CPU."""
    torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
    if torch is not None and isinstance(array, torch.Tensor):
        return array.device.type not in ("cpu", "meta")
    if jax is not None and isinstance(array, jax.Array):
        return all(device.platform != "cpu" for device in array.devices())
    return False


def not_rows(index: Trie, dtype: Any, shape: Sequence[int]) -> str:
    """The message about an array that is not rows."""
    return (
        f"rows must be integers [R] from 0 to {index.num_items - 1}, positions in index.item_ids and "
        f"index.attributes, which is not the order of the catalog; got {dtype} {list(shape)}. For item ids: "
        "index.constraint(ids=[...])."
    )


def no_such_row(index: Trie, row: int) -> str:
    """The message about a row that the index does not have."""
    return (
        f"rows must be from 0 to {index.num_items - 1}, positions in index.item_ids; got {row}. missing='ignore' skips "
        "such rows."
    )


class DeviceSet(ConstraintSet):
    """A subset of an index's items as a mask on a device.

    A search on the same device computes the nodes of the set there. The items are copied to the host on first use by
    anything else: `results` of items that share a SID, exclusions, `len`, `==`, and combinations with sets on the host.

    Attributes:
        device_mask: bool [N], on the device, in the order of the index.
        placed: the words of the levels on devices, by device; filled on first use.
    """

    device_mask: Any
    placed: dict[Any, tuple[Any, ...]]

    @classmethod
    def of(cls, index: Trie, mask: Any, name: str) -> DeviceSet:
        """Make a set from a mask, which is copied on its device.

        Raises:
            ConstraintError: the mask is not bool [N].
        """
        dtype, shape = str(mask.dtype).removeprefix("torch."), tuple(mask.shape)
        if dtype != "bool" or shape != (index.num_items,):
            raise ConstraintError(
                f"the mask must be bool [{index.num_items}], one entry per item in the order of index.item_ids and "
                f"index.attributes, which is not the order of the catalog; got {dtype} {list(shape)}."
            )
        # An array of JAX cannot change.
        return cls._holding(index, mask.detach().clone() if hasattr(mask, "detach") else mask, name)

    @classmethod
    def of_rows(cls, index: Trie, rows: Any, name: str, missing: Missing) -> DeviceSet:
        """Make a set from rows, on their device. With missing="ignore", the host does not wait for the device.

        Raises:
            ConstraintError: the rows are not integers [R], or with missing="raise" the index does not have one.
        """
        dtype, size = str(rows.dtype).removeprefix("torch."), index.num_items
        if not dtype.startswith(("int", "uint")) or len(rows.shape) != 1:
            raise ConstraintError(not_rows(index, dtype, rows.shape))
        known = (rows >= 0) & (rows < size)
        if missing == "raise" and not bool(known.all()):
            raise ConstraintError(no_such_row(index, int(rows[~known][0])))
        # Rows that do not exist go to one more entry.
        if hasattr(rows, "detach"):
            rows = rows.detach().long().masked_fill(~known, size)
            mask = rows.new_zeros(size + 1, dtype=sys.modules["torch"].bool).index_fill_(0, rows, True)
        else:
            numpy = sys.modules["jax"].numpy
            mask = numpy.zeros(size + 1, bool).at[numpy.where(known, rows, size)].set(True)
        return cls._holding(index, mask[:size], name)

    @classmethod
    def beside(cls, items: ConstraintSet, other: ConstraintSet) -> ConstraintSet:
        """A set on the device of another one: its mask is copied there from the host. Any set if `other` has none."""
        if isinstance(items, DeviceSet) or not isinstance(other, DeviceSet):
            return items
        mask = other.device_mask
        if hasattr(mask, "detach"):
            return cls._holding(items.index, sys.modules["torch"].from_numpy(items.mask).to(mask.device), items.name)
        return cls._holding(items.index, sys.modules["jax"].device_put(items.mask, mask.sharding), items.name)

    @classmethod
    def _holding(cls, index: Trie, mask: Any, name: str) -> DeviceSet:
        made = object.__new__(cls)
        made.__dict__.update(index=index, device_mask=mask, name=name, placed={})
        return made

    # Not a field, as in the parent, but made on first use.
    @cached_property
    def _words(self) -> np.ndarray:  # pyright: ignore[reportIncompatibleVariableOverride]
        mask = self.device_mask
        words = packed(np.asarray(mask.cpu() if hasattr(mask, "cpu") else mask))
        words.setflags(write=False)
        return words

    @cached_property
    def _stack_key(self) -> bytes:  # pyright: ignore[reportIncompatibleMethodOverride]
        # The items are not known on the host.
        return os.urandom(16)

    def named(self, name: str) -> ConstraintSet:
        """Make the same set with another name."""
        made = self._holding(self.index, self.device_mask, name)
        made.__dict__.update(placed=self.__dict__["placed"], _stack_key=self._stack_key)
        return made

    def __invert__(self) -> ConstraintSet:
        return self._holding(self.index, ~self.device_mask, name_of(None, "~", self))

    def _with(self, other: Any, sign: str, operation: Callable[..., Any]) -> ConstraintSet:
        if not isinstance(other, DeviceSet) or other.index is not self.index or not self._is_beside(other):
            return super()._with(other, sign, operation)
        signs = {"&": lambda a, b: a & b, "|": lambda a, b: a | b, "^": lambda a, b: a ^ b, "-": lambda a, b: a & ~b}
        return self._holding(self.index, signs[sign](self.device_mask, other.device_mask), name_of(self, sign, other))

    def _is_beside(self, other: DeviceSet) -> bool:
        """Whether two sets are on one device."""
        mine, theirs = self.device_mask, other.device_mask
        return type(mine) is type(theirs) and mine.device == theirs.device

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as a set on the host: another process may have no such device."""
        return ConstraintSet, (self.index, self._words, self.name)
