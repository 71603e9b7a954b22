"""`hedgerow warm-up`: what is searched, and the folders that are filled."""

import json
import os
import subprocess
import sys

import pytest
from commands import assert_refused

pytest.importorskip("torch")
pytest.importorskip("transformers")

from hedgerow.cli import warm_up
from hedgerow.hf import Retriever, compiled
from hedgerow.hf.caches import INDUCTOR


@pytest.fixture
def searches(monkeypatch) -> list:
    """The shapes of the calls of `Retriever.warm_up`."""
    shapes, warm = [], Retriever.warm_up

    def recorded(self, shape):
        shapes.append((shape.batch_size, shape.beam_widths, shape.rules, shape.candidates))
        warm(self, shape)

    monkeypatch.setattr(Retriever, "warm_up", recorded)
    return shapes


def test_the_films(call):
    code, stdout, stderr = call("warm-up", "--batch-sizes", "1,2", on_shop=False)
    assert code == 0
    assert "films demo" in stderr
    *_, first, second, note = stdout.splitlines()
    assert [line.split()[:2] for line in (first, second)] == [["1", "50"], ["2", "50"]]
    assert note == "nothing to cache: the step on a CPU is compiled ahead of time"


def test_each_shape_is_searched_twice(call, searches):
    code, stdout, stderr = call("warm-up", "--batch-sizes", "1,3", "--beam-width", "4,9", "--json")
    assert (code, stderr) == (0, "")
    facts = json.loads(stdout)
    shapes = [(1, 4), (1, 9), (3, 4), (3, 9)]
    assert [(each["batch_size"], each["beam_width"]) for each in facts["searches"]] == shapes
    every = [(False, False), (False, True), (True, False), (True, True)]
    assert searches == [(size, (width,), every, True) for size, width in shapes for _ in range(2)]
    assert facts["load_seconds"] > 0
    assert all(each[name] > 0 for each in facts["searches"] for name in ("first_seconds", "second_seconds"))
    assert (facts["caches"], facts["note"]) == ([], warm_up.AHEAD)


def test_without_the_compiled_module(call, monkeypatch):
    monkeypatch.setattr(warm_up, "native", None)
    facts = json.loads(call("warm-up", "--batch-sizes", "1", "--beam-width", "2", "--json")[1])
    assert facts["note"] == warm_up.NO_MODULE


def test_the_folder_of_compiled_layers(call, monkeypatch, tmp_path):
    monkeypatch.setattr(compiled, "BACKEND", "eager")
    monkeypatch.setenv(INDUCTOR, str(tmp_path / "cache"))
    words = ("warm-up", "--compile", "--batch-sizes", "1", "--beam-width", "2")
    code, stdout, _ = call(*words)
    assert code == 0
    assert f"{INDUCTOR} {tmp_path / 'cache'}: 0 new files; 0 files" in stdout
    assert "nothing to cache" not in stdout
    assert [each["variable"] for each in json.loads(call(*words, "--json")[1])["caches"]] == [INDUCTOR]


@pytest.mark.skipif("HEDGEROW_TEST_COMPILED" not in os.environ, reason="make test-compiled runs this test: a minute")
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")
def test_a_second_process_finds_the_compiled_layers(shop, tmp_path):
    folders = ("--model", str(shop[0] / "model"), "--index", str(shop[0] / "things.hedgerow"))
    words = [sys.executable, "-m", "hedgerow", "warm-up", *folders, "--compile", "--batch-sizes", "2", "--json"]
    environment = os.environ | {INDUCTOR: str(tmp_path)}
    first, second = (
        json.loads(subprocess.run(words, env=environment, check=True, capture_output=True).stdout)["caches"][0]
        for _ in range(2)
    )
    assert first["new_files"] == first["files"] > 0
    assert second == first | {"new_files": 0}


def test_a_folder_that_cannot_be_written(call, monkeypatch, tmp_path):
    """Before the model is loaded."""
    (tmp_path / "file").touch()
    monkeypatch.setenv(INDUCTOR, str(tmp_path / "file" / "cache"))
    assert_refused(call("warm-up", "--compile"), "cannot be written: Not a directory. Set TORCHINDUCTOR_CACHE_DIR")


@pytest.mark.parametrize("words", [("--batch-sizes", "0"), ("--batch-sizes", "a"), ("--beam-width", "5,0")])
def test_wrong_sizes(call, words):
    code, stdout, stderr = call("warm-up", *words)
    assert (code, stdout) == (2, "")
    assert words[0] in stderr
