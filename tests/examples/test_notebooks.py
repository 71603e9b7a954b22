"""The notebooks in examples/ run offline from the first to the last cell, and are committed without outputs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("pandas")
pytest.importorskip("transformers")

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


@pytest.fixture
def run(tmp_path):
    """Run a notebook in a separate process, so that its sockets and warnings do not affect other tests."""

    def execute(name, **more):
        environment = {key: value for key, value in os.environ.items() if key != "MODEL" and "JUPYTER" not in key}
        environment |= {
            "HF_HUB_OFFLINE": "1",
            "IPYTHONDIR": str(tmp_path / "ipython"),
            "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
            "JUPYTER_DATA_DIR": str(tmp_path / "data"),
        }
        script = ROOT / "tests/run_notebook.py"
        process = subprocess.run(
            [sys.executable, script, EXAMPLES / name],
            env=environment | more,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert process.returncode == 0, process.stderr[-5000:]
        return process.stdout

    return execute


def test_onerec(run):
    output = run("onerec.ipynb")
    assert "176,384 tokens" in output
    assert "constrained: 0 %" in output


def test_films(run):
    assert "left the beam at level 1" in run("films.ipynb")


def test_onerec_on_a_checkpoint(run, tmp_path):
    """With MODEL set, as for a real checkpoint: tokens are detected by their names, and prompts are chats."""
    checkpoint = tmp_path / "checkpoint"
    save_checkpoint(checkpoint)
    output = run("onerec.ipynb", MODEL=str(checkpoint))
    assert "codebook_sizes=(8192, 8192, 8192), begin=(24585,), end=(24586,)" in output


def save_checkpoint(folder):
    """Save a small random model, and a tokenizer with a few words and the tokens of OneRec in the order of OneRec."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    words = ["[UNK]", "<|im_start|>", "<|im_end|>", "user", "assistant", "I", "have", "watched", "next"]
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")
    codes = [f"<s_{level}_{code}>" for level in "abc" for code in range(8192)]
    tokenizer.add_tokens([*codes, "<|sid_begin|>", "<|sid_end|>"])
    tokenizer.chat_template = (
        "{% for message in messages %}<|im_start|> {{ message.role }} {{ message.content }} <|im_end|> {% endfor %}"
        "{% if add_generation_prompt %}<|im_start|> assistant {% endif %}"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=0.5,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)


def test_a_failing_cell_fails_the_run(run, tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("assert 1 == 2, 'not equal'")])
    nbformat.write(notebook, tmp_path / "wrong.ipynb")
    with pytest.raises(AssertionError, match="not equal"):
        run(tmp_path / "wrong.ipynb")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_normalized(path):
    """Notebooks have no outputs, no counts, readable cell ids and one JSON layout, so that diffs show only changes."""
    text = path.read_text("utf-8")
    notebook = nbformat.reads(text, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert json.dumps(json.loads(text), indent=1, ensure_ascii=False, sort_keys=True) + "\n" == text
    for cell in notebook.cells:
        assert re.fullmatch(r"[a-z0-9-]+", cell.id)
        assert not cell.metadata
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


def test_both_notebooks_exist():
    assert [path.name for path in NOTEBOOKS] == ["films.ipynb", "onerec.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_link_targets_exist(path):
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text("utf-8")):
        assert (EXAMPLES / target).exists(), target
