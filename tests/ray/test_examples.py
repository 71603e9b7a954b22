"""The Python blocks of the page about Ray, and the examples of the docstrings of hedgerow.ray."""

import re
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("fastapi")

import hedgerow.ray

PAGE = Path(__file__).parents[2] / "docs/how-to/ray.md"
BLOCK = re.compile(r"^( *)```python[^\n]*\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


def blocks_of(text: str) -> list[str]:
    return [textwrap.dedent(body) for _, body in BLOCK.findall(text)]


@pytest.mark.parametrize("number", range(3))
def test_page(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = blocks_of(PAGE.read_text("utf-8"))
    assert len(blocks) == 3
    exec(compile(blocks[number], f"{PAGE}, block {number}", "exec"), {"__name__": "page"})


@pytest.mark.parametrize("name", hedgerow.ray.__all__)
def test_docstring(name, tmp_path, monkeypatch):
    """The examples of one docstring share a namespace."""
    monkeypatch.chdir(tmp_path)
    examples = blocks_of(getattr(hedgerow.ray, name).__doc__)
    assert examples
    names = {"__name__": "example"}
    for number, example in enumerate(examples, 1):
        exec(compile(example, f"hedgerow.ray.{name}, example {number}", "exec"), names)
