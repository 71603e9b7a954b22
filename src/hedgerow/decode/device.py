"""DeviceIndex: the trie as arrays of one backend, on one device."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from hedgerow.decode.beams import Beams
from hedgerow.decode.capacity import Capacity, padded_levels
from hedgerow.decode.ops import Array, Ops, ops_of
from hedgerow.decode.prepared import LevelConstraints, PreparedConstraints
from hedgerow.errors import ArgumentError, BackendError
from hedgerow.index.fanout import count_parents
from hedgerow.index.level import ARRAYS, Level
from hedgerow.index.trie import Trie


@dataclass(frozen=True, eq=False)
class DeviceLevel:
    """A `Level` of the trie as arrays of one backend; codes and words reinterpreted as signed integers for PyTorch.

    Attributes:
        codes: [max(E, 1)], unsigned for NumPy and JAX, the same bits as signed for PyTorch.
        child_start: [P + 1] int32, or None where unary or forked.
        forks: [X] int32, or None where not forked.
        allowed: [P, W] int32, or None where not dense.
        codebook_size: C.
        max_branch: K.
        end: the code that says that a SID has ended; None where none does.
    """

    codes: Array
    child_start: Array | None
    forks: Array | None
    allowed: Array | None
    codebook_size: int
    max_branch: int
    end: int | None = None

    @property
    def num_parents(self) -> int:
        """P: states of the beams before this level are below it, and not below 0 but where dead."""
        return count_parents(self.child_start, self.forks, len(self.codes))


@dataclass(frozen=True, eq=False)
class DeviceIndex:
    """The trie on a device, ready for `step` and `beam_search`; a pytree in JAX.

    Attributes:
        levels: L levels.
        device: where the arrays are, in the backend's own terms.
        capacity: what the arrays are padded to, or None.
    """

    levels: tuple[DeviceLevel, ...]
    _ops: Ops
    device: Any
    capacity: Capacity | None = None

    @property
    def backend(self) -> str:
        """The framework of the arrays: "numpy", "torch" or "jax"."""
        return self._ops.name

    @property
    def num_levels(self) -> int:
        """L, the number of levels."""
        return len(self.levels)

    def refill(self, index: Trie) -> None:
        """Puts another index, which fits in the capacity, in the place of this one: into the same tensors of PyTorch,
        so that a captured CUDA graph goes on with it. No search may be under way on this one; on a GPU, what was
        launched before on the same stream ends first. PreparedConstraints are those of the other index from then on: for a
        captured graph, `PreparedConstraints.refill`.

        Raises:
            ArgumentError: this index has no capacity, or the other does not fit in.
            BackendError: it is not on PyTorch.
        """
        if self.backend != "torch":
            raise BackendError("only tensors of PyTorch are refilled; give a compiled step index.to(...).")
        if self.capacity is None:
            raise ArgumentError("only an index with a capacity can be refilled: index.to(..., capacity=...).")
        padded = padded_levels(self.capacity, index)
        HOSTS[self] = index
        for mine, level in zip(self.levels, padded, strict=True):
            for name, array in level.arrays.items():
                tensor = getattr(mine, name)
                tensor.copy_(_from_numpy(array.view(f"i{array.itemsize}") if array.itemsize > 1 else array))

    def __repr__(self) -> str:
        return f"DeviceIndex(levels={self.num_levels}, backend={self.backend!r}, device={str(self.device)!r})"


def to_device(index: Trie, backend: str, device: Any = None, capacity: Capacity | None = None) -> DeviceIndex:
    """Returns `index` as arrays of `backend` on `device`: `Trie.to`."""
    ops = ops_of(backend)
    put, where = PLACERS[backend](device)

    def placed(array: np.ndarray | None, dtype: type) -> Array | None:
        return None if array is None else put(array.view(dtype))

    def level_on_device(level: Level) -> DeviceLevel:
        codes = level.codes if level.num_nodes else np.zeros(1, level.codes.dtype)
        return DeviceLevel(
            placed(codes, _code_dtype(codes.dtype, ops)),
            placed(level.child_start, np.int32),
            placed(level.forks, np.int32),
            placed(level.allowed, np.int32),
            level.codebook_size,
            level.max_branch,
            level.end,
        )

    levels = index.levels if capacity is None else padded_levels(capacity, index)
    made = DeviceIndex(tuple(level_on_device(level) for level in levels), ops, where, capacity)
    HOSTS[made] = index
    return made


def host_of(index: DeviceIndex) -> Trie | None:
    """Returns the index on the host that was taken to the device; None where a framework has made this copy of it."""
    return HOSTS.get(index)


def placer(index: DeviceIndex) -> Callable[[np.ndarray], Array]:
    """Returns what brings NumPy arrays to where the index is."""
    return PLACERS[index.backend](index.device)[0]


def is_accelerated(index: DeviceIndex) -> bool:
    """Whether the index is on one device that is not the CPU."""
    if index.backend == "torch":
        return index.device.type != "cpu"
    if index.backend == "numpy":
        return False
    import jax

    device = jax.devices()[0] if index.device is None else index.device
    return isinstance(device, jax.Device) and device.platform != "cpu"


def as_device_index(index: DeviceIndex | Trie) -> DeviceIndex:
    """Returns `index`, or, given the index of the host, its NumPy form, which shares its memory."""
    if isinstance(index, Trie):
        return to_device(index, "numpy")
    if not isinstance(index, DeviceIndex):
        live = hasattr(index, "restrict") or hasattr(index, "version")
        hint = " For a live index, pass version.index or version.to(...), and constraints=version.restrict()." * live
        raise ArgumentError(f"expected a TrieIndex or a DeviceIndex; got {type(index).__name__}.{hint}")
    return index


def _code_dtype(dtype: np.dtype, ops: Ops) -> Any:
    """PyTorch gathers uint8 but not uint16 or uint32; the step reads their bits back."""
    if ops.name == "torch" and dtype.itemsize > 1:
        return np.dtype(f"i{dtype.itemsize}")
    return dtype


def _numpy_placer(device: Any) -> tuple[Any, Any]:
    if device not in (None, "cpu"):
        raise BackendError(f"NumPy arrays are on the 'cpu'; got device {device!r}. Use the backend torch or jax.")
    return np.asarray, "cpu"


def _torch_placer(device: Any) -> tuple[Any, Any]:
    import torch

    _register_with_torch()
    try:
        where = torch.empty(0, device="cpu" if device is None else device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        raise BackendError(f"PyTorch cannot use device {device!r}: {error}") from None

    return lambda array: _from_numpy(array).to(where), where


def _from_numpy(array: np.ndarray) -> Array:
    import torch

    with warnings.catch_warnings():
        # The index is read-only, and only padded copies of it are written to, so PyTorch may share its memory.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _jax_placer(device: Any) -> tuple[Any, Any]:
    import jax

    _register_with_jax()
    if isinstance(device, str):
        try:
            device = jax.devices(device)[0]
        except RuntimeError as error:
            raise BackendError(f"JAX cannot use device {device!r}: {error}") from None
    return lambda array: jax.device_put(array, device), device


PLACERS: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "numpy": _numpy_placer,
    "torch": _torch_placer,
    "jax": _jax_placer,
}
# An index of a device does not hold that of the host itself: it may be taken apart and put together by a framework.
HOSTS: WeakKeyDictionary[DeviceIndex, Trie] = WeakKeyDictionary()


@cache
def _register_with_torch() -> None:
    import torch

    for kind in (Beams, LevelConstraints, PreparedConstraints):
        torch.export.register_dataclass(kind, serialized_type_name=f"hedgerow.{kind.__name__}")


@cache
def _register_with_jax() -> None:
    import jax
    import jax.export

    register = jax.tree_util.register_dataclass
    register(LevelConstraints, ["rows", "free", "alive", "dead_parents", "dead_slots"], [])
    register(PreparedConstraints, ["levels"], [])
    register(Beams, ["codes", "scores", "states", "parents"], [])
    register(DeviceLevel, [*ARRAYS], ["codebook_size", "max_branch", "end"])
    register(DeviceIndex, ["levels"], ["_ops", "device", "capacity"])
    # So that an exported step, which takes and gives Beams, can be written to a file.
    for kind in (Beams, LevelConstraints, PreparedConstraints):
        jax.export.register_pytree_node_serialization(
            kind,
            serialized_name=f"hedgerow.{kind.__name__}",
            serialize_auxdata=lambda _: b"",
            deserialize_auxdata=lambda _: (),
        )
