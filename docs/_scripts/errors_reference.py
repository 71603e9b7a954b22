"""The page reference/errors.md, generated from `hedgerow.errors` and from the docstrings of the public names."""

from __future__ import annotations

import inspect
import re
from collections import defaultdict

from public_names import PublicName, public_names

HEADER = """\
# Errors

hedgerow raises a subclass of [`HedgerowError`][hedgerow.HedgerowError] if an input is invalid, a file is damaged or an
optional dependency is missing. Each message states what is wrong, what was expected, what was given, and how to fix it.
The command line prints the message on one line and exits with code 1. This page is generated from the code.

"""
RAISED = re.compile(r"^ +(\w+):", re.MULTILINE)


def errors_page() -> str:
    """Generate the page as Markdown."""
    from hedgerow import errors as module

    classes = [value for value in vars(module).values() if inspect.isclass(value)]
    errors = [value for value in classes if issubclass(value, module.HedgerowError)]
    raised_by = _raised_by(public_names())
    rows = ["| Error | Also a | Raised by |", "| --- | --- | --- |"]
    sections = []
    for error in errors:
        name = error.__name__
        bases = [f"`{base.__name__}`" for base in error.__bases__ if not issubclass(base, module.HedgerowError)]
        links = [f"[`{_short(path)}`][{path}]" for path in raised_by[name]]
        rows.append(f"| [`{name}`][hedgerow.{name}] | {', '.join(bases)} | {_summary(links)} |")
        sections.append(f"::: hedgerow.{name}\n    options:\n      show_bases: true\n")
    return HEADER + "\n".join([*rows, "", *sections])


def _raised_by(names: list[PublicName]) -> dict[str, list[str]]:
    """Error name -> the public names whose docstrings list it under `Raises:`."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        section = re.search(r"^Raises:\n((?: +.*\n?|\n)+)", name.docstring, re.MULTILINE)
        for error in RAISED.findall(section[1]) if section else []:
            found[error].append(name.path)
    return found


def _short(path: str) -> str:
    return re.sub(r"^hedgerow\.(hf\.)?", "", path)


def _summary(links: list[str], most: int = 6) -> str:
    more = f" and {len(links) - most} more" if len(links) > most else ""
    return ", ".join(links[:most]) + more
