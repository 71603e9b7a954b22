"""The README's Python runs, in order, as it stands; what it names is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def test_code_runs(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    pytest.importorskip("faiss")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 3
    names: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)


def test_tree_is_the_tree():
    """Every module of the core is in the tree, and nothing that is not there; bench and demo are one line each."""
    source = ROOT / "src/hedgerow"
    tree = README[README.index("src/hedgerow/\n") : README.index("tests/  ")]
    named = set(re.findall(r"[├└]─ (\w+\.py)", tree))
    rooms = tuple(source / name for name in (".", "index", "decode", "hf", "live", "semantic"))
    assert named == {path.name for room in rooms for path in room.glob("*.py")} - {"__init__.py", "__main__.py"}


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_commands_exist():
    from typer.main import get_command

    from hedgerow.cli.main import app

    verbs = set(get_command(app).commands)  # type: ignore[attr-defined]
    assert set(re.findall(r"^hedgerow ([\w-]+)", README, re.MULTILINE)) <= verbs
