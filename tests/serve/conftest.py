"""A model, an index, a live index, rules and a token in a folder, for `hedgerow serve`."""

import threading
from dataclasses import dataclass, field
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


@dataclass
class Held:
    """Searches wait until `go` is set; `prompts` has the token ids of those that have begun."""

    go: threading.Event = field(default_factory=threading.Event)
    prompts: list = field(default_factory=list)

    def set(self) -> None:
        self.go.set()

    def clear(self) -> None:
        self.go.clear()
        self.prompts.clear()


@pytest.fixture
def held(monkeypatch):
    from hedgerow.hf.searcher import Searcher

    hold, search = Held(), Searcher.results

    def wait(self, tasks, numbers):
        hold.prompts.extend([task.ids for task in tasks])
        assert hold.go.wait(30)
        return search(self, tasks, numbers)

    monkeypatch.setattr(Searcher, "results", wait)
    yield hold
    hold.go.set()
