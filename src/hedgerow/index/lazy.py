"""Lazy: a value that is made on first use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from hedgerow._read_only import set_read_only

T = TypeVar("T")


class Lazy(Generic[T]):
    """A function without arguments that calls another one once, and then releases it. It is pickled as its result.

    Args:
        make: makes the value. Threads that need it at the same time may each make it.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make

    def __call__(self) -> T:
        """The value."""
        value = self._make()
        self._make = _Made(value)
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self(),)


class _Made(Generic[T]):
    """A function that returns a value, whose arrays are read-only from now on."""

    def __init__(self, value: T) -> None:
        set_read_only(value)
        self._value = value

    def __call__(self) -> T:
        return self._value


def _unpickled(value: T) -> Lazy[T]:
    return made(value)


def made(value: T) -> Lazy[T]:
    """A Lazy whose value exists already."""
    return Lazy(_Made(value))
