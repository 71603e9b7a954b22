"""The help page of every command, compared with a text file in tests/cli/help.

To write the files again after a change:

    RENEW_HELP=1 .venv/bin/pytest tests/cli/test_help.py

Then read the difference with `git diff tests/cli/help`. A page is compared without its frames, line breaks and repeated
spaces, because these differ between versions of Rich. Typer before the version of the files prints other types of
options, so the comparison is skipped there.
"""

import os
import re
from pathlib import Path

import pytest
import typer
from rich.text import Text
from typer.main import get_command
from typer.testing import CliRunner

from hedgerow.cli.main import app

HELP = Path(__file__).parent / "help"
# The version of Typer that wrote the files.
TYPER = (0, 29)
ANSI = re.compile(r"\x1b\[[0-9;]*m")
# The corners and lines of Rich's boxes.
FRAME = re.compile(r"[─│╭╮╰╯┌┐└┘]+")
# The largest number of threads is the number of CPUs.
THREADS = re.compile(r"(--threads\b[^\]]*\[1<=x<=)\d+")


def commands(command=None, path=()):
    """All commands and groups by their path: ("live", "add") -> command."""
    command = get_command(app) if command is None else command
    found = {path: command}
    for name, child in getattr(command, "commands", {}).items():
        found |= commands(child, (*path, name))
    return found


COMMANDS = commands()


@pytest.fixture
def page_of(monkeypatch):
    """Returns a function from the path of a command to its help page, as printed in a terminal of 80 columns."""
    for name, value in {"COLUMNS": "80", "TERMINAL_WIDTH": "80", "NO_COLOR": "1", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)
    for name in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)

    def page(path):
        done = CliRunner().invoke(app, [*path, "--help"], prog_name="hedgerow")
        assert done.exit_code == 0, done.output
        lines = ANSI.sub("", done.stdout).splitlines()
        return THREADS.sub(r"\1N", "\n".join(line.rstrip() for line in lines).strip() + "\n")

    return page


def words_of(page: str) -> list[str]:
    """The words of a page, without frames."""
    return FRAME.sub(" ", page).split()


def minor(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")[:2]))


def file_of(path: tuple[str, ...]) -> Path:
    return HELP / f"{'-'.join(('hedgerow', *path))}.txt"


@pytest.mark.skipif(minor(typer.__version__) < TYPER, reason="the files are those of a newer Typer")
@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: " ".join(path) or "hedgerow")
def test_help_page(path, page_of):
    page, file = page_of(path), file_of(path)
    assert "…" not in page, "a flag is cut"
    if os.environ.get("RENEW_HELP"):
        HELP.mkdir(exist_ok=True)
        file.write_text(page, "utf-8")
    assert file.exists(), f"{file} is missing; write it with RENEW_HELP=1 (see this module)"
    expected = file.read_text("utf-8")
    message = f"the help page differs from {file}; if that is intended, write it again with RENEW_HELP=1"
    assert words_of(page) == words_of(expected), message


def test_there_are_no_other_files():
    assert {file.name for file in HELP.iterdir()} == {file_of(path).name for path in COMMANDS}


def texts_of(command) -> list[str]:
    """The texts of a help page that can contain markup."""
    texts = [
        command.help,
        command.short_help,
        command.epilog,
        *(getattr(param, "help", None) for param in command.params),
    ]
    return [text for text in texts if text]


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: " ".join(path) or "hedgerow")
def test_no_text_in_square_brackets_is_lost(path, page_of):
    """Rich removes text in square brackets that it takes for markup, unless the bracket is escaped."""
    page = " ".join(words_of(page_of(path)))
    for text in texts_of(COMMANDS[path]):
        shown = text.replace("\\[", "[")
        assert Text.from_markup(text).plain == shown
        for bracketed in re.findall(r"\[[^\[\]]*\]", shown):
            assert bracketed in page


def test_help_of_retrieve_shows_token_ids(page_of):
    assert '"text", [token ids], or an object: {"prompt": either' in " ".join(words_of(page_of(("retrieve",))))


@pytest.mark.parametrize("path", [path for path, command in COMMANDS.items() if not hasattr(command, "commands")])
def test_every_command_has_an_example(path, page_of):
    assert f"Example: hedgerow {' '.join(path)}" in " ".join(words_of(page_of(path)))


@pytest.mark.parametrize("path", list(COMMANDS))
def test_help_shows_every_word_of_its_texts(path, page_of):
    """Brackets are markup of Rich, which removes those that it takes for a style."""
    command, page = COMMANDS[path], "".join(words_of(page_of(path)))
    texts = [command.help, command.epilog, *(getattr(parameter, "help", None) for parameter in command.params)]
    for text in filter(None, texts):
        assert "".join(text.replace("\\[", "[").split()) in page
