"""A model, an index, a live index, rules and a token in a folder, for `hedgerow serve`."""

from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Shop:
    """The files of a service."""

    folder: Path
    model: Path
    index: Path
    rules: Path
    token: Path

    def live(self, name: str) -> Path:
        """A new live index of version 1."""
        import hedgerow as hr

        hr.LiveIndex.create(self.folder / name, hr.load_index(self.index))
        return self.folder / name


@pytest.fixture(scope="session")
def shop(tmp_path_factory) -> Shop:
    # A Skipped exception at the import of conftest.py would be an error.
    from serve.support import RULES, TOKEN, index, tokenizer
    from tiny import new_model

    folder = tmp_path_factory.mktemp("shop")
    new_model("llama").save_pretrained(folder / "tiny")
    tokenizer().save_pretrained(folder / "tiny")
    index().save(folder / "things.hedgerow")
    rules = "\n".join(f"{name} = {where!r}" for name, where in RULES.items() if "'" not in where)
    (folder / "rules.toml").write_text(f"[sets]\n{rules}\nmade = \"maker = 'someone'\"\n")
    (folder / "token").write_text(f"{TOKEN}\n")
    return Shop(folder, folder / "tiny", folder / "things.hedgerow", folder / "rules.toml", folder / "token")
