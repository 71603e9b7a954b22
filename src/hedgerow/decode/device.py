"""DeviceIndex: the trie as arrays of a backend, on a device."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from hedgerow._read_only import ReadOnlyArrays
from hedgerow.decode.beams import Beams
from hedgerow.decode.capacity import Capacity, padded_levels
from hedgerow.decode.ops import Array, Ops, ops_of
from hedgerow.decode.prepared import LevelConstraints, PreparedConstraints
from hedgerow.errors import ArgumentError, BackendError
from hedgerow.index.compact import VECTOR_ARRAYS, AnyLevel, CompactLevel, code_bits
from hedgerow.index.fanout import count_parents
from hedgerow.index.level import ARRAYS
from hedgerow.index.packed import packed_words
from hedgerow.index.trie import Trie

# The arrays of a level on a device.
DEVICE_ARRAYS = (*ARRAYS, *VECTOR_ARRAYS)


@dataclass(frozen=True, eq=False)
class DeviceLevel(ReadOnlyArrays):
    """A `Level` of the trie as arrays of a backend.

    Attributes:
        codes: [max(E, 1)] uint8, uint16 or uint32. PyTorch holds the bits of the last two as int16 and int32. In a
            compact level, int32 words of packed bits: see `index.compact.CompactLevel`.
        child_start: [P + 1] int32, or None if the level has no row pointers.
        forks: [X] int32, or None if the level has no forks.
        allowed: [P, W] int32, or None if the level is not dense.
        codebook_size: C.
        max_branch: K.
        end: the code that ends a ragged SID, or None.
        high: [blocks, 8] int32, the bit vector of a compact level, or None.
        zeros_before: [blocks] int32, or None.
        ones_before: [blocks] int32, or None.
        low_bits: the number of packed bits of each code; None if the level is not compact.
        compact_nodes: E, of a compact level.
        compact_parents: P, of a compact level.
    """

    codes: Array
    child_start: Array | None
    forks: Array | None
    allowed: Array | None
    codebook_size: int
    max_branch: int
    end: int | None = None
    high: Array | None = None
    zeros_before: Array | None = None
    ones_before: Array | None = None
    low_bits: int | None = None
    compact_nodes: int = 0
    compact_parents: int = 0

    @property
    def num_nodes(self) -> int:
        """E, the number of nodes, at least 1; padded if the index has a capacity."""
        return len(self.codes) if self.low_bits is None else max(self.compact_nodes, 1)

    @property
    def num_parents(self) -> int:
        """P, the number of parents; padded if the index has a capacity."""
        if self.low_bits is not None:
            return self.compact_parents
        return count_parents(self.child_start, self.forks, len(self.codes))

    @property
    def is_unary(self) -> bool:
        """Whether each parent has one child, so that nothing is stored but the codes."""
        return self.child_start is None and self.forks is None and self.high is None

    @property
    def high_bits(self) -> int:
        """The number of bits of each code that are in the bit vector."""
        return 0 if self.low_bits is None else code_bits(self.codebook_size) - self.low_bits


@dataclass(frozen=True, eq=False)
class DeviceIndex:
    """The trie on a device, ready for `step` and `beam_search`. `TrieIndex.to` makes one. A pytree in JAX.

    Attributes:
        levels: L levels.
        device: where the arrays are, in the terms of the backend: "cpu" for NumPy, a `torch.device`, or a JAX device
            or sharding (None: JAX's default device).
        capacity: the sizes that the arrays are padded to, or None.

    Examples:
        ```python
        import numpy as np
        import hedgerow as hr

        device_index = hr.build_index(hr.Catalog([[0, 1], [2, 0]])).to("numpy")
        assert (device_index.backend, device_index.num_levels) == ("numpy", 2)
        beams = hr.init_beams(device_index, batch_size=1)
        beams = hr.step(device_index, beams, np.zeros((1, 1, 3)), beam_width=2)
        assert beams.num_valid.tolist() == [2]
        ```
    """

    levels: tuple[DeviceLevel, ...]
    _ops: Ops
    device: Any
    capacity: Capacity | None = None

    @property
    def backend(self) -> str:
        """Framework of the arrays: "numpy", "torch" or "jax"."""
        return self._ops.name

    @property
    def num_levels(self) -> int:
        """Number of levels, L."""
        return len(self.levels)

    def refill(self, index: Trie | DeviceIndex) -> None:
        """Copy another index into the tensors of this one, so that a captured CUDA graph searches the other index.

        Call it between searches. On a GPU, the copy runs after the work that was launched before on the current
        stream. Constraints must come from the other index afterwards; see `PreparedConstraints.refill`.

        Args:
            index: an index that fits into `capacity`, or a device index with this capacity, which is copied faster.

        Raises:
            ArgumentError: this index has no capacity, or `index` is not an index or does not fit into it.
            BackendError: this index is not on PyTorch.

        Examples:
            ```python
            import hedgerow as hr

            monday = hr.build_index(hr.Catalog([[0, 1], [2, 0]], codebook_sizes=3))
            tuesday = hr.build_index(hr.Catalog([[0, 1], [1, 1], [2, 0]], codebook_sizes=3))
            device_index = monday.to("torch", capacity=hr.Capacity.of(monday, headroom=1.5))
            codes = device_index.levels[0].codes
            device_index.refill(tuesday)
            assert device_index.levels[0].codes is codes and codes[:3].tolist() == [0, 1, 2]
            ```
        """
        if self.backend != "torch":
            raise BackendError(
                f"refill writes to PyTorch tensors, and this index is on the backend {self.backend!r}. Pass a new "
                "index.to(...) to the step instead: a compiled step runs on every index of the same capacity."
            )
        if self.capacity is None:
            raise ArgumentError(
                "refill needs an index with a capacity: index.to('torch', capacity=hr.Capacity.of(index))."
            )
        if isinstance(index, DeviceIndex):
            self._take(index)
            return
        if not isinstance(index, Trie):
            raise ArgumentError(f"refill takes a TrieIndex or a DeviceIndex; got {type(index).__name__}.")
        padded = padded_levels(self.capacity, index)
        HOSTS[self] = index
        for device_level, level in zip(self.levels, padded, strict=True):
            for name, array in level.arrays.items():
                tensor = getattr(device_level, name)
                tensor.copy_(_from_numpy(array.view(f"i{array.itemsize}") if array.itemsize > 1 else array))

    def _take(self, other: DeviceIndex) -> None:
        """Copy the arrays of an index with the same capacity."""
        if (other.backend, other.capacity) != (self.backend, self.capacity):
            raise ArgumentError(
                "refill takes a device index of the same backend and capacity. Pass the TrieIndex instead, or make it "
                "with index.to('torch', capacity=device_index.capacity)."
            )
        host = HOSTS.get(other)
        if host is None:
            HOSTS.pop(self, None)
        else:
            HOSTS[self] = host
        for level, of_other in zip(self.levels, other.levels, strict=True):
            for name in DEVICE_ARRAYS:
                if (tensor := getattr(level, name)) is not None:
                    tensor.copy_(getattr(of_other, name))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with the index on the host, which constraints need."""
        return _with_host, (HOSTS.get(self), self.levels, self._ops, self.device, self.capacity)

    def __deepcopy__(self, memo: dict[int, Any]) -> DeviceIndex:
        """Copy the arrays. The copy has the same index on the host, so the same constraint sets fit."""
        return _with_host(HOSTS.get(self), deepcopy(self.levels, memo), self._ops, self.device, self.capacity)

    def __repr__(self) -> str:
        return f"DeviceIndex(levels={self.num_levels}, backend={self.backend!r}, device={str(self.device)!r})"


def _with_host(host: Trie | None, *fields: Any) -> DeviceIndex:
    """A DeviceIndex of its fields, and of the index on the host if there is one."""
    index = DeviceIndex(*fields)
    if host is not None:
        HOSTS[index] = host
    return index


def to_device(index: Trie, backend: str, device: Any = None, capacity: Capacity | None = None) -> DeviceIndex:
    """Copy an index to a device: `TrieIndex.to`, which documents arguments and errors."""
    ops = ops_of(backend)
    put, backend_device = PLACERS[backend](device)

    def placed(array: np.ndarray | None, dtype: type) -> Array | None:
        return None if array is None else put(array.view(dtype))

    def level_on_device(level: AnyLevel) -> DeviceLevel:
        if isinstance(level, CompactLevel):
            arrays = dict(level.arrays)
            if not level.num_nodes:
                arrays["codes"] = np.zeros(packed_words(1, level.low_bits), np.uint32)
            placed_arrays = {name: put(array.view(np.int32)) for name, array in arrays.items()}
            return DeviceLevel(
                **dict.fromkeys(DEVICE_ARRAYS) | placed_arrays,
                codebook_size=level.codebook_size,
                max_branch=level.max_branch,
                end=level.end,
                low_bits=level.low_bits,
                compact_nodes=level.num_nodes,
                compact_parents=level.num_parents,
            )
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
    device_index = DeviceIndex(tuple(level_on_device(level) for level in levels), ops, backend_device, capacity)
    HOSTS[device_index] = index
    return device_index


def host_of(index: DeviceIndex) -> Trie | None:
    """The index on the host that was copied to the device, or None if a framework rebuilt `index` from its leaves."""
    return HOSTS.get(index)


def placer(index: DeviceIndex) -> Callable[[np.ndarray], Array]:
    """A function that copies NumPy arrays to the device of the index."""
    return PLACERS[index.backend](index.device)[0]


def is_accelerated(index: DeviceIndex) -> bool:
    """Whether the index is on a single device other than the CPU."""
    if index.backend == "torch":
        return index.device.type != "cpu"
    if index.backend == "numpy":
        return False
    import jax

    device = jax.devices()[0] if index.device is None else index.device
    return isinstance(device, jax.Device) and device.platform != "cpu"


def as_device_index(index: DeviceIndex | Trie) -> DeviceIndex:
    """The index itself, or for an index on the host its NumPy form, which shares its memory.

    Raises:
        ArgumentError: `index` is not an index.
    """
    if isinstance(index, Trie):
        return to_device(index, "numpy")
    if not isinstance(index, DeviceIndex):
        is_live = hasattr(index, "restrict") or hasattr(index, "version")
        hint = " For a live index, pass version.index or version.to(...), and constraints=version.restrict()." * is_live
        hint += " Copy it to a device first: .to('numpy')." * (hasattr(index, "to") and not is_live)
        raise ArgumentError(f"expected a TrieIndex or a DeviceIndex; got {type(index).__name__}.{hint}")
    return index


def _code_dtype(dtype: np.dtype, ops: Ops) -> Any:
    """The dtype that codes have on the device. PyTorch cannot index uint16 and uint32, so it holds them as signed."""
    if ops.name == "torch" and dtype.itemsize > 1:
        return np.dtype(f"i{dtype.itemsize}")
    return dtype


def _numpy_placer(device: Any) -> tuple[Any, Any]:
    if device not in (None, "cpu"):
        raise BackendError(
            f"the device of NumPy arrays is 'cpu'; got device {device!r}. Use index.to('torch', device=...) or "
            "index.to('jax', device=...)."
        )
    return np.asarray, "cpu"


def _torch_placer(device: Any) -> tuple[Any, Any]:
    import torch

    _register_with_torch()
    try:
        torch_device = torch.empty(0, device="cpu" if device is None else device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        raise BackendError(f"PyTorch cannot use device {device!r}: {error}") from None
    return lambda array: _from_numpy(array).to(torch_device), torch_device


def _from_numpy(array: np.ndarray) -> Array:
    import torch

    with warnings.catch_warnings():
        # Tensors share the memory of the read-only index. Only padded copies of it are written to.
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
# Not an attribute of DeviceIndex: JAX flattens and rebuilds it, and the index on the host is not an array.
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
    register(Beams, ["codes", "scores", "states", "parents", "code_scores"], [])
    sizes = ["low_bits", "compact_nodes", "compact_parents"]
    register(DeviceLevel, [*DEVICE_ARRAYS], ["codebook_size", "max_branch", "end", *sizes])
    register(DeviceIndex, ["levels"], ["_ops", "device", "capacity"])
    # An exported step takes and returns these, and jax.export writes it to a file.
    for kind in (Beams, LevelConstraints, PreparedConstraints):
        jax.export.register_pytree_node_serialization(
            kind,
            serialized_name=f"hedgerow.{kind.__name__}",
            serialize_auxdata=lambda _: b"",
            deserialize_auxdata=lambda _: (),
        )
