"""The page reference/cli.md, generated from the command-line application."""

from __future__ import annotations

import re
from typing import Any

HEADER = """\
# Command line

`hedgerow` builds, checks and changes indexes, runs models, and measures. Every command has `--help`. Commands with
`--json` print machine-readable output. This page is generated from the application.
"""
# Markup of rich, such as [bold] or [/dim].
MARKUP = re.compile(r"\[/?[a-z][a-z ]*\]|\[/\]")
# What a help record appends to the text of an option: [default: 10; x>=1], [required].
BRACKETS = re.compile(r"\s*\[((?:required|default|env var|\d|x\s*[<>])[^\]]*)\]$")


def cli_page() -> str:
    """Generate the page as Markdown."""
    from typer.main import get_command

    from hedgerow.cli.main import app

    return "\n".join([HEADER, *_sections(get_command(app), "hedgerow", 2)]) + "\n"


def _sections(command: Any, path: str, depth: int) -> list[str]:
    """The sections of a command and, in order, of its subcommands."""
    lines = _section(command, path, depth)
    for name, child in getattr(command, "commands", {}).items():
        if not child.hidden:
            # All commands have the same two heading depths, so that the table of contents shows each of them.
            lines += _sections(child, f"{path} {name}", 2 if depth == 2 and _is_group(child) else 3)
    return lines


def _section(command: Any, path: str, depth: int) -> list[str]:
    # Resilient parsing makes a context without reading arguments or running callbacks.
    context = command.make_context(path, [], resilient_parsing=True)
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    usage = re.sub(r"[{}]", "", usage)
    records = [(param, param.get_help_record(context)) for param in command.get_params(context)]
    shown = [(param, record) for param, record in records if record and "--help" not in param.opts]
    arguments = [record for param, record in shown if param.param_type_name == "argument"]
    options = [record for param, record in shown if param.param_type_name == "option"]
    lines = [f"{'#' * depth} {path}", "", _text(command.help or ""), "", "```text", usage, "```", ""]
    lines += _table("Argument", arguments) + _table("Option", options)
    if command.epilog:
        lines += _epilog(command.epilog)
    return lines


def _table(kind: str, records: list[tuple[str, str]]) -> list[str]:
    if not records:
        return []
    rows = [f"| {kind} | Description | Default or range |", "| --- | --- | --- |"]
    for declaration, help_text in records:
        text = _text(help_text)
        bracket = BRACKETS.search(text)
        limits = "" if bracket is None else _limits(bracket[1])
        text = text if bracket is None else text[: bracket.start()]
        rows.append(f"| {_cell(_code(declaration))} | {_cell(text)} | {_cell(limits)} |")
    return [*rows, ""]


def _limits(text: str) -> str:
    return "; ".join(part if part == "required" else f"`{part.removeprefix('default: ')}`" for part in text.split("; "))


def _code(declaration: str) -> str:
    """`-o, --output <path>` with each spelling as code."""
    return ", ".join(f"`{part}`" for part in declaration.split(", "))


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def _text(help_text: str) -> str:
    plain = MARKUP.sub("", help_text.strip())
    return re.sub(r"(?<![`\w])(--[a-z][\w-]*)", r"`\1`", plain).replace("<", "&lt;")


def _epilog(epilog: str) -> list[str]:
    plain = MARKUP.sub("", epilog.strip())
    if plain.startswith("Example:"):
        return ["```sh", plain.removeprefix("Example:").strip(), "```", ""]
    return [_text(plain), ""]


def _is_group(command: Any) -> bool:
    return bool(getattr(command, "commands", None))
