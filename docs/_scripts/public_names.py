"""The public names of hedgerow, and the rules that their documentation must meet."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODULES = (
    "hedgerow",
    "hedgerow.distributed",
    "hedgerow.export",
    "hedgerow.hf",
    "hedgerow.metrics",
    "hedgerow.ray",
    "hedgerow.training",
)
MEMBER_TYPES = (classmethod, staticmethod, property, functools.cached_property)
PYTHON_BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
DIRECTIVE = re.compile(r"^::: +([\w.]+)", re.MULTILINE)


@dataclass(frozen=True)
class PublicName:
    """One public name.

    Attributes:
        path: the name that users import, for example `hedgerow.Catalog.from_arrow`.
        owner: the public class or module that the name belongs to, for example `hedgerow.Catalog`.
        docstring: its docstring, without indentation; empty if it has none.
        needs_example: whether the docstring must contain an example. Functions and classes need one; members of
            classes and exception classes do not.
    """

    path: str
    owner: str
    docstring: str
    needs_example: bool

    @property
    def examples(self) -> list[str]:
        """The Python blocks of the docstring."""
        return [textwrap.dedent(body) for _, body in PYTHON_BLOCK.findall(self.docstring)]


def public_names() -> list[PublicName]:
    """List every public name: those of `__all__` in MODULES, and the public members of public classes."""
    names: list[PublicName] = []
    for module in MODULES:
        loaded = importlib.import_module(module)
        for name in loaded.__all__:
            names += _names_of(module, name, getattr(loaded, name))
    return names


def problems(is_documented: Callable[[PublicName], bool]) -> list[str]:
    """List what the documentation lacks, one line per problem.

    Args:
        is_documented: whether the API reference contains a name.
    """
    found = []
    for name in public_names():
        if not is_documented(name):
            found.append(f"{name.path} is public, but no page under docs/reference contains `::: {name.path}`.")
        if not name.docstring:
            found.append(f"{name.path} is public, but has no docstring.")
        elif name.needs_example and not name.examples:
            found.append(f"{name.path} is public, but its docstring has no ```python example.")
    return found


def directives(reference: Path) -> set[str]:
    """The names that the pages under `reference` render with `:::` directives."""
    pages = reference.rglob("*.md")
    return {name for page in pages for name in DIRECTIVE.findall(page.read_text("utf-8"))}


def _names_of(module: str, name: str, value: Any) -> Iterator[PublicName]:
    path = f"{module}.{name}"
    if not (inspect.isclass(value) or callable(value) or inspect.ismodule(value)):
        return
    needs_example = not inspect.ismodule(value) and not (inspect.isclass(value) and issubclass(value, Exception))
    yield PublicName(path, module, _docstring(value), needs_example)
    if inspect.isclass(value):
        for member, found in _members(value).items():
            yield PublicName(f"{path}.{member}", path, _docstring(found), needs_example=False)


def _members(class_: type) -> dict[str, Any]:
    """The public methods and properties of a class, those of its bases in hedgerow included."""
    members: dict[str, Any] = {}
    for base in class_.__mro__:
        if base.__module__.split(".")[0] == "hedgerow":
            for name, value in vars(base).items():
                if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, MEMBER_TYPES)):
                    members.setdefault(name, value)
    return members


def _docstring(value: Any) -> str:
    return inspect.cleandoc(getattr(value, "__doc__", None) or "")
