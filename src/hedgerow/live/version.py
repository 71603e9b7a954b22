"""Version: one version of a live index, which later changes of the live index do not affect."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow._read_only import set_read_only
from hedgerow.constraints.requests import Exclusions, Sets, batch_rules
from hedgerow.constraints.sets import ConstraintSet
from hedgerow.decode.beams import Beams
from hedgerow.decode.capacity import Capacity
from hedgerow.decode.device import DeviceIndex
from hedgerow.index.locks import share_lock
from hedgerow.live.manifest import VersionInfo
from hedgerow.picking import OrderBy
from hedgerow.results import Results
from hedgerow.trie_index import TrieIndex


class Pin:
    """Protects folders of versions from being pruned by any process, as long as it exists and its process lives.

    Where there are no locks, it protects nothing: readers need no lock.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        handles: list[int] = []
        weakref.finalize(self, _close, handles)
        for folder in folders:
            if (handle := share_lock(folder)) is not None:
                handles.append(handle)


def _close(handles: list[int]) -> None:
    for handle in handles:
        os.close(handle)


class SharedCapacity:
    """The capacity of a live index on devices, which its versions share as long as they fit."""

    def __init__(self, headroom: float | None) -> None:
        self.headroom, self.capacity, self.lock = headroom, None, threading.Lock()

    def of(self, index: TrieIndex) -> Capacity | None:
        """The capacity for an index, enlarged if the index does not fit; None without headroom."""
        if self.headroom is None:
            return None
        with self.lock:
            if self.capacity is None or not self.capacity.holds(index):
                self.capacity = Capacity.of(index, self.headroom)
            return self.capacity


class Devices:
    """An index on each device that it was copied to."""

    def __init__(self, index: TrieIndex, capacity: SharedCapacity) -> None:
        self.index, self.capacity = index, capacity
        self.copies: dict[tuple[str, str], DeviceIndex] = {}
        self.lock = threading.Lock()

    def to(self, backend: str, device: Any) -> DeviceIndex:
        """The index on a device, copied there on first use."""
        with self.lock:
            key = (backend, str(device))
            if key not in self.copies:
                self.copies[key] = self.index.to(backend, device, capacity=self.capacity.of(self.index))
            return self.copies[key]


@dataclass(frozen=True, eq=False, repr=False)
class Version:
    """One version of a live index. Its files exist as long as the object does, so that a search on it can finish.

    It is pickled as its path and checksums, and opened again where it is unpickled; that is an IndexFileError if the
    path does not contain the same version.

    Attributes:
        info: the entry of the version in the manifest.
        index: the index, which may contain items that were removed after it was written.
        removed_rows: int64, ascending: the rows of `index` that were removed.

    Examples:
        ```python
        import numpy as np
        import hedgerow as hr

        index = hr.build_index(hr.Catalog([[0], [1], [2]], item_ids=["a", "b", "c"]))
        version = hr.LiveIndex.create("items.live", index).remove(["b"])
        assert (version.number, version.num_items, len(version.index)) == (2, 2, 3)
        beams = hr.beam_search(
            version.index,
            lambda beams: np.zeros((1, 1, 3)),
            batch_size=1,
            beam_width=3,
            constraints=version.restrict(),
        )
        assert version.results(beams)[0].item_ids == ["a", "c"]
        ```
    """

    info: VersionInfo
    index: TrieIndex
    removed_rows: np.ndarray
    _pin: Pin
    _devices: Devices
    # Opens the version in another process, from its entry and its index.
    _open: Callable[[VersionInfo, TrieIndex], Version]

    def __post_init__(self) -> None:
        set_read_only(self.removed_rows)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the folder and the checksums of the version. A copy opens the same version, or raises an error."""
        return self._open, (self.info, self.index)

    def __copy__(self) -> Version:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Version:
        return self

    @property
    def number(self) -> int:
        """The number of the version, at least 1. Numbers are not reused."""
        return self.info.number

    @property
    def num_items(self) -> int:
        """The number of items, without removed items."""
        return self.index.num_items - len(self.removed_rows)

    @cached_property
    def removed(self) -> np.ndarray:
        """bool [N]: whether each item of `index` was removed.

        `index.filter(~removed, order="index")` is an index of the others.
        """
        mask = np.zeros(self.index.num_items, bool)
        mask[self.removed_rows] = True
        mask.setflags(write=False)
        return mask

    def to(self, backend: str, device: Any = None) -> DeviceIndex:
        """Copies `index` to a device as arrays of a backend; later calls return the same copy.

        With the `headroom` of the live index, the arrays are padded to a capacity that versions share.

        Args:
            backend: "numpy", "torch" or "jax".
            device: as for `TrieIndex.to`.

        Raises:
            BackendError: the backend is unknown, or the device cannot be used.
            MissingDependencyError: the backend is not installed.

        Examples:
            ```python
            import hedgerow as hr

            version = hr.LiveIndex.create("items.live", hr.build_index(hr.Catalog([[0, 1], [2, 0]]))).version
            assert version.to("numpy") is version.to("numpy")
            ```
        """
        return self._devices.to(backend, device)

    @cached_property
    def live_items(self) -> ConstraintSet | None:
        """The items that were not removed, as a constraint set of `index`; None if no items were removed.

        With the `headroom` of the live index, it is always a constraint set, so that the first removal does not
        trigger recompilation.
        """
        if not len(self.removed_rows) and self._devices.capacity.headroom is None:
            return None
        return self.index.constraint(~self.removed, order="index", name=f"items of version {self.number}")

    def restrict(self, constraints: Sets = None) -> Sets:
        """Add the removal of items to the constraints of a search on this version.

        Args:
            constraints: the constraint sets of `index` for the requests: one for all, or for each request its set or
                None.

        Returns:
            The `constraints=` argument for the search.

        Raises:
            ConstraintError: a constraint set belongs to another index, or `constraints` contains something else.

        Examples:
            ```python
            import hedgerow as hr

            index = hr.build_index(hr.Catalog([[0], [1], [2]], item_ids=["a", "b", "c"]))
            version = hr.LiveIndex.create("items.live", index).remove(["b"])
            named = version.index.constraint(ids=["a", "b"])
            assert version.restrict(named) == version.index.constraint(ids=["a"])
            ```
        """
        live_items = self.live_items
        if constraints is None:
            return live_items
        is_one = isinstance(constraints, ConstraintSet)
        batch_size = len(constraints) if isinstance(constraints, Sequence) and not is_one else 1
        sets = batch_rules(self.index, batch_size, constraints, None).sets or (None,) * batch_size
        if live_items is None:
            return constraints
        restricted = [live_items if items is None else items & live_items for items in sets]
        return restricted[0] if is_one else restricted

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
        """Map finished beams to items as `TrieIndex.results` does, without removed items.

        Args:
            beams: the beams after the last level.
            constraints: the constraint sets of the search, before or after `restrict`.
            exclude: as for `TrieIndex.results`.
            k: as for `TrieIndex.results`.
            order_by: as for `TrieIndex.results`.
            caps: as for `TrieIndex.results`.

        Raises:
            ArgumentError: as for `TrieIndex.results`.
            ConstraintError: as for `TrieIndex.results`.

        Examples:
            ```python
            import numpy as np
            import hedgerow as hr

            index = hr.build_index(hr.Catalog([[0], [0], [1]], item_ids=["a", "b", "c"]))
            version = hr.LiveIndex.create("items.live", index).remove(["b"])
            beams = hr.beam_search(version.index, lambda beams: np.zeros((1, 1, 2)), batch_size=1, beam_width=2)
            assert version.results(beams)[0].item_ids == ["a", "c"]
            ```
        """
        restricted = self.restrict(constraints)
        return self.index.results(beams, constraints=restricted, exclude=exclude, k=k, order_by=order_by, caps=caps)

    def __repr__(self) -> str:
        removed = f"items={self.num_items:,}, removed={len(self.removed_rows):,}, " if len(self.removed_rows) else ""
        return f"Version({self.number}, {removed}{self.index!r})"
