"""`hedgerow build --ray` and `hedgerow retrieve --ray`."""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from saved import contents

import hedgerow as hr
import hedgerow.ray.lines
from hedgerow.cli.main import main
from hedgerow.request_lines import LINES_AT_ONCE


@pytest.fixture
def call(monkeypatch, capsys):
    """Run a command line; returns the exit code, stdout and stderr."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["hedgerow", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return int(stopped.value.code or 0), *capsys.readouterr()

    return run


def test_build(call, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "items").mkdir()
    for number in range(6):
        sids = pa.array(rng.integers(0, 9, (50, 3)).tolist())
        table = pa.table({"sid": sids, "name": [f"{number} {row}" for row in range(50)], "price": rng.random(50)})
        pq.write_table(table, tmp_path / "items" / f"{number}.parquet")
    words = [tmp_path / "items", "--item-id", "name", "--codebook-sizes", "9"]
    code, stdout, _ = call("build", *words, "-o", tmp_path / "ray", "--ray", "--workers", "2", "--json")
    assert code == 0
    assert json.loads(stdout)["items"] == 300
    assert call("build", *words, "-o", tmp_path / "one")[0] == 0
    assert contents(tmp_path / "ray") == contents(tmp_path / "one")
    for wrong in (["--ray", "--ragged"], ["--ray", "--dense-levels", "0"], ["--workers", "2"]):
        assert call("build", *words, "-o", tmp_path / "wrong", *wrong)[0] == 2
    code, _, stderr = call("build", tmp_path / "items", "--item-id", "none", "-o", tmp_path / "wrong", "--ray")
    assert (code, "there is no item id column 'none'" in stderr) == (1, True)
    assert not (tmp_path / "wrong").exists()


LINES = [
    '"w5 w6"',
    '{"prompt": ',
    '{"prompt": "w9", "id": 7, "where": "year >= 1950"}',
    "",
    '""',
    '{"prompt": "w9", "k": 2}',
]


@pytest.fixture
def prompts(tmp_path, monkeypatch):
    """A file in the current folder, of so many lines that there are three files of answers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hedgerow.ray.lines, "LINES_PER_FILE", LINES_AT_ONCE)
    Path("prompts.jsonl").write_text("\n".join(LINES[number % len(LINES)] for number in range(200)))
    return Path("prompts.jsonl")


def answers_in(folder: Path) -> str:
    return "".join(path.read_text("utf-8") for path in sorted(folder.glob("part-*.jsonl")))


def test_retrieve(call, shop, prompts):
    words = ["retrieve", shop.model, shop.index, "--input", prompts, "-k", "3", "--columns", "title", "--exclude", "t1"]
    code, local, _ = call(*words, "--json")
    assert code == 1
    code, stdout, _ = call(*words, "--ray", "--output", "answers", "--workers", "2", "--json")
    assert code == 1
    assert json.loads(stdout) == {"path": "answers", "failed": local.count('{"line": ')}
    assert answers_in(Path("answers")) == local
    assert len(list(Path("answers").glob("part-*.jsonl"))) == 3


def test_retrieve_goes_on_after_an_interruption(call, shop, prompts):
    words = ["retrieve", shop.model, shop.index, "--input", prompts, "-k", "3", "--ray", "-o", "answers"]
    assert call(*words)[0] == 1
    before = contents(Path("answers"))
    untouched = Path("answers/part-00001.jsonl").stat().st_mtime_ns
    for name in ("part-00000.jsonl", "part-00002.jsonl"):
        Path("answers", name).unlink()
    Path("answers/part-00000.jsonl.new").write_text("half")
    code, stdout, _ = call(*words)
    assert (code, "lines have an error" in stdout) == (1, True)
    assert contents(Path("answers")) == before
    assert Path("answers/part-00001.jsonl").stat().st_mtime_ns == untouched
    # Nothing is left to do.
    assert call(*words)[0] == 1

    def refused(*more) -> str:
        code, _, stderr = call(*words, *more)
        assert code == 1
        assert contents(Path("answers")) == before
        return stderr

    assert "answers of another job: its 'options' was" in refused("--exclude", "t1")
    prompts.write_text('"w5"')
    assert "answers of another job: its 'input' was" in refused()


def test_a_job_keeps_the_version_of_a_live_index(call, shop, prompts):
    live = hr.LiveIndex.create("things.live", hr.load_index(shop.index))
    words = ["retrieve", shop.model, live.path, "--input", prompts, "-k", "3", "--ray", "-o", "answers"]
    assert call(*words)[0] == 1
    before = contents(Path("answers"))
    removed = json.loads(answers_in(Path("answers")).splitlines()[0])["items"][0]["item_id"]
    live.remove([removed])
    Path("answers/part-00000.jsonl").unlink()
    assert call(*words)[0] == 1
    assert contents(Path("answers")) == before
    assert json.loads(before["job.json"])["version"] == 1


def test_retrieve_refuses(call, shop, prompts, tmp_path):
    words = ["retrieve", shop.model, shop.index, "--input", prompts]
    assert call(*words, "--ray")[0] == 2
    assert call(*words, "--output", "answers")[0] == 2
    assert call("retrieve", "-p", "w5", "--ray", "--output", "answers")[0] == 2
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    for more, message in (
        (["-o", "other"], "contains something else"),
        (["-o", "prompts.jsonl"], "is a file"),
        (["-o", "answers", "--columns", "titel"], "did you mean 'title'"),
        (["-o", "answers", "--exclude", "t1", "--tokens", "<{level}>"], "<{level}>"),
    ):
        code, stdout, stderr = call(*words, "--ray", *more)
        assert (code, stdout) == (1, "")
        assert message in stderr
        assert stderr.count("\n") == 1
