"""DeviceSet: a constraint set whose mask is on a GPU or a TPU, copied to the host only where the host needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from hedgerow.constraints.sets import ConstraintSet, name_of
from hedgerow.errors import ConstraintError
from hedgerow.index.bits import packed
from hedgerow.index.trie import Trie


def is_on_device(mask: Any) -> bool:
    """Whether a mask is a tensor of PyTorch or an array of JAX on a device other than the CPU."""
    torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
    if torch is not None and isinstance(mask, torch.Tensor):
        return mask.device.type not in ("cpu", "meta")
    if jax is not None and isinstance(mask, jax.Array):
        return all(device.platform != "cpu" for device in mask.devices())
    return False


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
