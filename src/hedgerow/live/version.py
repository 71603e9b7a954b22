"""Version: a handle on one state of a live index, which stays as it is whatever writers do."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hedgerow.decode.capacity import Capacity
from hedgerow.index.edit import in_sorted
from hedgerow.index.files import LOCK
from hedgerow.index.trie import TrieIndex
from hedgerow.live.manifest import VersionInfo

if TYPE_CHECKING:
    from hedgerow.decode.beams import Beams
    from hedgerow.decode.device import DeviceIndex
    from hedgerow.results import Results


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
        """Bool [N]: whether each item of `index` was removed: `hr.subset(index, ~removed)` has the rest."""
        mask = np.zeros(self.index.num_items, bool)
        mask[self.removed_rows] = True
        mask.setflags(write=False)
        return mask

    def to(self, backend: str, device: Any = None) -> DeviceIndex:
        """Returns `index` as arrays of a backend, moved there once, and padded where the live index has `headroom`.

        Errors as for `TrieIndex.to`.
        """
        return self.devices.to(backend, device)

    def items(self, beams: Beams) -> list[Results]:
        """Returns what `TrieIndex.items` does, without the items that were removed."""
        found = self.index.items(beams)
        return [_without(results, self.removed_rows) for results in found] if len(self.removed_rows) else found

    def __repr__(self) -> str:
        removed = f", removed={len(self.removed_rows):,}" if len(self.removed_rows) else ""
        return f"Version({self.number}, {self.index!r}{removed})"


def _without(results: Results, removed_rows: np.ndarray) -> Results:
    keep = np.flatnonzero(~in_sorted(results.rows, removed_rows))
    # Taken with a column beside them: Arrow forgets the number of rows of a table without columns.
    attributes = results.attributes.append_column("", [results.rows]).take(keep).drop_columns([""])
    ids = [results.item_ids[at] for at in keep.tolist()]
    return replace(
        results,
        item_ids=ids,
        sids=results.sids[keep],
        scores=results.scores[keep],
        rows=results.rows[keep],
        attributes=attributes,
    )
