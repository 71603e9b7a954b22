"""Objects whose arrays stay read-only when they are unpickled or copied: NumPy makes new arrays writable."""

from __future__ import annotations

from typing import Any

import numpy as np


class ReadOnlyArrays:
    """Base class of immutable objects: the arrays of a pickled object, also in tuples, are read-only again."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the attributes of a pickled or copied object."""
        for value in state.values():
            set_read_only(value)
        self.__dict__.update(state)


def set_read_only(value: Any) -> None:
    """Make an array read-only, or the arrays of a tuple or list."""
    if isinstance(value, np.ndarray):
        value.setflags(write=False)
    elif isinstance(value, tuple | list):
        for each in value:
            set_read_only(each)
