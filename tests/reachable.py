"""All arrays that can be reached from an object of hedgerow, with their paths."""

import types
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

Found = Iterator[tuple[str, np.ndarray]]


def arrays_in(thing: Any, path: str = "", seen: dict[int, Any] | None = None) -> Found:
    """The arrays of an object and of what it holds: attributes, containers, bound functions and their closures."""
    seen = {} if seen is None else seen
    if id(thing) in seen:
        return
    # An object that is held here keeps its id.
    seen[id(thing)] = thing
    if isinstance(thing, np.ndarray):
        yield path, thing
        return
    for name, value in _parts(thing):
        yield from arrays_in(value, f"{path}{name}", seen)


def _parts(thing: Any) -> Iterator[tuple[str, Any]]:
    """What an object holds, with its names."""
    if isinstance(thing, dict):
        yield from ((f"[{key!r}]", value) for key, value in list(thing.items()))
    elif isinstance(thing, list | tuple | set | frozenset):
        yield from ((f"[{number}]", value) for number, value in enumerate(thing))
    elif isinstance(thing, partial):
        yield from ((".func", thing.func), (".args", thing.args), (".keywords", thing.keywords))
    elif isinstance(thing, types.MethodType):
        yield ".__self__", thing.__self__
    elif isinstance(thing, types.FunctionType):
        cells = thing.__closure__ or ()
        yield from ((f".closure[{number}]", cell.cell_contents) for number, cell in enumerate(cells))
    elif type(thing).__module__.startswith("hedgerow") and not isinstance(thing, type):
        slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ()) if name[:2] != "__"]
        yield from ((f".{name}", getattr(thing, name)) for name in slots if hasattr(thing, name))
        yield from ((f".{name}", value) for name, value in list(vars(thing).items()))
