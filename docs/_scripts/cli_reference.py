"""The page reference/cli.md, generated from the command-line application."""

from __future__ import annotations

import re
from typing import Any

from rich.text import Text

HEADER = """\
# Command line

`hedgerow` builds, checks and updates indexes, runs models, and runs benchmarks. Every command accepts `--help`.
Commands with `--json` print machine-readable output. This page is generated from the application.
"""


def cli_page() -> str:
    """Generate the page as Markdown."""
    from typer.main import get_command

    from hedgerow.cli.main import app

    root = get_command(app)
    lines = [HEADER, *_options_of(root, "hedgerow")]
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        lines += _sections(command, f"hedgerow {name}", 2)
    return "\n".join(lines) + "\n"


def _sections(command: Any, path: str, depth: int) -> list[str]:
    """The sections of a command and of its subcommands."""
    if command.hidden:
        return []
    lines = [f"{'#' * depth} {path}", "", _prose(command.help or ""), "", *_options_of(command, path)]
    for name, child in getattr(command, "commands", {}).items():
        lines += _sections(child, f"{path} {name}", depth + 1)
    return lines


def _options_of(command: Any, path: str) -> list[str]:
    """The usage, the arguments, the options and the example of a command."""
    # Resilient parsing makes a context without reading arguments or running callbacks.
    context = command.make_context(path, [], resilient_parsing=True)
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    lines = ["```text", re.sub(r"[{}]", "", usage), "```", ""]
    for kind in ("argument", "option"):
        rows = [
            _row(param, record)
            for param in command.get_params(context)
            if param.param_type_name == kind and "--help" not in param.opts
            if (record := param.get_help_record(context))
        ]
        if rows:
            lines += [f"| {kind.capitalize()} | Description | Default, range |", "| --- | --- | --- |", *rows, ""]
    epilog = _plain(command.epilog or "")
    if epilog.startswith("Example:"):
        lines += ["```sh", epilog.removeprefix("Example:").strip(), "```", ""]
    elif epilog:
        lines += [_prose(epilog), ""]
    return lines


def _row(param: Any, record: tuple[str, str]) -> str:
    spellings = ", ".join(f"`{spelling}`" for spelling in record[0].split(", "))
    # A record is the help text and, in brackets, what applies: "Items.  [default: 10; x>=1]".
    applies = record[1].removeprefix(param.help or "").strip().removeprefix("[").removesuffix("]")
    parts = [part.removeprefix("default: ") for part in applies.split("; ") if part]
    limits = "; ".join(part if part == "required" else f"`{part}`" for part in parts)
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in (spellings, _prose(param.help or ""), limits)) + " |"


def _prose(help_text: str) -> str:
    """Help text as Markdown: flags as code, and nothing that would be taken for HTML or a link."""
    escaped = re.sub(r"([\[\]<*_])", r"\\\1", " ".join(_plain(help_text).split()))
    return re.sub(r"(?<![`\w-])(--[a-z][\w-]*)", r"`\1`", escaped)


def _plain(help_text: str) -> str:
    """Help text without the markup of rich."""
    return Text.from_markup(help_text).plain.strip()
