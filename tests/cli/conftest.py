"""A model and an index in folders, and commands that use them."""

import sys

import pytest

import hedgerow as hr
from hedgerow.cli.main import main

ATTRIBUTES = {
    "title": [f"Thing [{row}]" for row in range(150)],
    "year": [1900 + row // 2 for row in range(150)],
    "kinds": [["a", "b"]] * 150,
    "maker": ["someone", None] * 75,
    "price": [row / 8 for row in range(150)],
}


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    """A folder with a model, its tokenizer and an index, and a retriever with the same."""
    for package in ("torch", "transformers"):
        pytest.importorskip(package)
    from tiny import CODES, TOKENS, catalog, new_model, tokenizer

    from hedgerow.hf import Retriever

    folder = tmp_path_factory.mktemp("shop")
    things = hr.Catalog(
        catalog().sids, codebook_sizes=CODES, item_ids=[f"t{row}" for row in range(150)], attributes=ATTRIBUTES
    )
    index = hr.build_index(things)
    index.save(folder / "things.hedgerow")
    model = new_model("llama")
    model.save_pretrained(folder / "model")
    tokenizer().save_pretrained(folder / "model")
    return folder, Retriever(model, index, TOKENS, tokenizer=tokenizer())


@pytest.fixture
def call(monkeypatch, capsys, shop):
    """Run a command line with the shop; returns the exit code, stdout and stderr."""

    def run(*words, on_shop=True):
        folders = ["--model", shop[0] / "model", "--index", shop[0] / "things.hedgerow"] if on_shop else []
        monkeypatch.setattr(sys, "argv", ["hedgerow", *map(str, [*words, *folders])])
        with pytest.raises(SystemExit) as stopped:
            main()
        return int(stopped.value.code or 0), *capsys.readouterr()

    return run
