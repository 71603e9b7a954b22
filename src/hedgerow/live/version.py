"""Version: a handle on one state of a live index, which stays as it is whatever writers do."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow.constraints.requests import Exclusions, Sets, batch_rules
from hedgerow.constraints.sets import ConstraintSet
from hedgerow.decode.beams import Beams
from hedgerow.decode.capacity import Capacity
from hedgerow.decode.device import DeviceIndex
from hedgerow.index.files import LOCK
from hedgerow.live.manifest import VersionInfo
from hedgerow.results import OrderBy, Results
from hedgerow.trie_index import TrieIndex


class Pin:
    """Keeps folders of versions from being pruned, by any process, until it is dropped or its process ends."""

    def __init__(self, folders: Iterable[Path]) -> None:
        handles: list[int] = []
        weakref.finalize(self, _close, handles)
        for folder in folders:
            handles.append(os.open(folder / LOCK, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)))
            _lock_shared(handles[-1])


def _lock_shared(handle: int) -> None:
    try:
        import fcntl
    except ModuleNotFoundError:
        return
    fcntl.flock(handle, fcntl.LOCK_SH)


def _close(handles: list[int]) -> None:
    for handle in handles:
        os.close(handle)


class Room:
    """The capacity of a live index on devices, which versions share for as long as they fit in."""

    def __init__(self, headroom: float | None) -> None:
        self.headroom, self.capacity, self.growing = headroom, None, threading.Lock()

    def of(self, index: TrieIndex) -> Capacity | None:
        """Returns the capacity, larger than it was where `index` does not fit in; None where none is wanted."""
        if self.headroom is None:
            return None
        with self.growing:
            if self.capacity is None or not self.capacity.holds(index):
                self.capacity = Capacity.of(index, self.headroom)
            return self.capacity


class Devices:
    """An index on the devices it was moved to, once each."""

    def __init__(self, index: TrieIndex, room: Room) -> None:
        self.index, self.room = index, room
        self.moved: dict[tuple[str, str], DeviceIndex] = {}
        self.moving = threading.Lock()

    def to(self, backend: str, device: Any) -> DeviceIndex:
        """Returns the index on a device."""
        with self.moving:
            key = (backend, str(device))
            if key not in self.moved:
                self.moved[key] = self.index.to(backend, device, capacity=self.room.of(self.index))
            return self.moved[key]


@dataclass(frozen=True, eq=False, repr=False)
class Version:
    """One version of a live index. As long as it is held its files stay, and what was begun on it can be finished.

    Attributes:
        info: what the manifest says of it.
        index: its items, and those that were removed since the index was written.
        removed_rows: [R] int64, rising: the rows of `index` that this version has not.
    """

    info: VersionInfo
    index: TrieIndex
    removed_rows: np.ndarray
    pin: Pin
    devices: Devices

    @property
    def number(self) -> int:
        """Which version it is: 1 or more, never used twice."""
        return self.info.number

    @property
    def num_items(self) -> int:
        """How many items it has, those removed not counted."""
        return self.index.num_items - len(self.removed_rows)

    @cached_property
    def removed(self) -> np.ndarray:
        """Bool [N]: whether each item of `index` was removed: `index.filter(~removed)` holds the rest."""
        mask = np.zeros(self.index.num_items, bool)
        mask[self.removed_rows] = True
        mask.setflags(write=False)
        return mask

    def to(self, backend: str, device: Any = None) -> DeviceIndex:
        """Returns `index` as arrays of a backend, moved there once, and padded where the live index has `headroom`.

        Errors as for `TrieIndex.to`.
        """
        return self.devices.to(backend, device)

    @cached_property
    def live_items(self) -> ConstraintSet | None:
        """The items that are left, as a set of `index`; None where none was removed, and all may be shown.

        Where the live index has `headroom` it is a set even then, so that the first removal compiles nothing again.
        """
        if not len(self.removed_rows) and self.devices.room.headroom is None:
            return None
        return self.index.constraint(~self.removed, name=f"left in version {self.number}")

    def restrict(self, constraints: Sets = None) -> Sets:
        """Returns what to give a search on this version as `constraints`, so that no beam goes to a removed item.

        Args:
            constraints: the sets of `index` that the requests have besides: one for all, or a list of one or None
                each; left out, none.

        Raises:
            ConstraintError: a set is another index's, or something else is no set.
        """
        shown = self.live_items
        if constraints is None or shown is None:
            return shown if constraints is None else constraints
        if isinstance(constraints, ConstraintSet):
            return constraints & shown
        many = len(constraints) if isinstance(constraints, Sequence) else 0
        sets = batch_rules(self.index, many, constraints, None).sets or (None,) * many
        return [shown if items is None else items & shown for items in sets]

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
        """Returns what `TrieIndex.items` does, without the items that were removed. Arguments and errors as there."""
        shown = self.restrict(constraints)
        return self.index.results(beams, constraints=shown, exclude=exclude, k=k, order_by=order_by, caps=caps)

    def __repr__(self) -> str:
        removed = f"items={self.num_items:,}, removed={len(self.removed_rows):,}, " if len(self.removed_rows) else ""
        return f"Version({self.number}, {removed}{self.index!r})"
