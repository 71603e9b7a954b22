"""Functions that Numba compiles once and stores, where a folder for them can be written."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from numba import njit

# What Numba says if it can write to no folder: not beside the source, not in the user's, not in NUMBA_CACHE_DIR.
NO_FOLDER = "no locator available"
_warned = False


def cached_njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a function as `numba.njit(cache=True)` does; on a file system that is read-only, without the cache.

    Args:
        **options: as for `numba.njit`.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError as error:
            if NO_FOLDER not in str(error):
                raise
            _warn_once()
            return njit(**options)(function)

    return decorate


def _warn_once() -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            "Numba can write compiled functions to no folder, so each process compiles them again, which takes "
            "seconds. Set the environment variable NUMBA_CACHE_DIR to a folder that can be written.",
            UserWarning,
            stacklevel=3,
        )
