"""The command line as `main` runs it, and once in a separate process."""

import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from datetime import date
from io import StringIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import hedgerow as hr
from hedgerow.cli.common import print_json
from hedgerow.cli.main import app, main

SIDS = [[3, 1], [0, 2], [3, 1], [2, 0]]


def run(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """Run a command in this process, because importing hedgerow takes longer than most commands."""
    command, stdout, stderr = ["hedgerow", *map(str, words)], StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
        patch.setattr(sys, "argv", command)
        if cwd is not None:
            patch.chdir(cwd)
        with pytest.raises(SystemExit) as stopped:
            main()
    return subprocess.CompletedProcess(command, int(stopped.value.code or 0), stdout.getvalue(), stderr.getvalue())


@pytest.fixture
def films(tmp_path):
    path = tmp_path / "films.parquet"
    pq.write_table(pa.table({"name": ["d", "b", "a", "c"], "sid": SIDS, "year": [1, 2, 3, 4]}), path)
    return path


@pytest.mark.parametrize("memory", [[], ["--memory", "100MB"]])
def test_build_compact(films, tmp_path, memory):
    index = tmp_path / "films.hedgerow"
    built = run("build", films, "-o", index, "--item-id", "name", "--compact", "--json", *memory)
    assert json.loads(built.stdout)["layout"] == "compact"
    assert hr.load_index(index).layout == "compact"
    shown = run("inspect", index).stdout
    assert 'layout="compact"' in shown
    assert "elias-fano: bit vector" in shown
    assert "format 3" in shown
    assert json.loads(run("verify", index, "--json").stdout)["valid"]
    run("filter", index, "year > 2", "-o", tmp_path / "new")
    assert json.loads(run("inspect", tmp_path / "new", "--json").stdout)["layout"] == "compact"


def test_build_inspect_verify(films, tmp_path):
    index = tmp_path / "films.hedgerow"
    built = run("build", films, "-o", index, "--item-id", "name", "--codebook-sizes", "4,3", "--json")
    assert built.returncode == 0, built.stderr
    facts = json.loads(built.stdout)
    assert (facts["items"], facts["sids"], facts["path"]) == (4, 3, str(index))
    assert [level["codebook_size"] for level in facts["levels"]] == [4, 3]
    loaded = hr.load_index(index)
    assert loaded.item_ids.to_pylist() == ["b", "c", "a", "d"]
    assert loaded.attributes.column_names == ["year"]

    inspected = json.loads(run("inspect", index, "--json").stdout)
    assert inspected["columns"] == {"item_id": "string", "year": "int64"}
    assert set(inspected["file_bytes"]) == {"trie", "items"}
    assert json.loads(run("verify", index, "--json").stdout)["valid"] is True

    shown = run("inspect", index)
    assert "2 items share 1 SID; at most 2 items have the same SID" in shown.stdout
    assert "representation" in shown.stdout
    assert run("verify", index).stdout.startswith("valid")


def test_sources(tmp_path):
    np.save(tmp_path / "sids.npy", np.asarray(SIDS))
    (tmp_path / "sids.json").write_text(json.dumps(dict(zip("dbac", SIDS, strict=True))))
    columns = pa.table({"a": [3, 0, 3, 2], "b": [1, 2, 1, 0], "c": [1, 1, 1, 1]})
    pq.write_table(columns, tmp_path / "columns.parquet")
    runner = CliRunner()
    for source, options in (
        ("sids.npy", []),
        ("sids.json", []),
        ("columns.parquet", ["--sid", "a,b", "--attributes", ""]),
    ):
        output = tmp_path / f"{source}.hedgerow"
        done = runner.invoke(app, ["build", str(tmp_path / source), "-o", str(output), *options])
        assert done.exit_code == 0, done.output
        index = hr.load_index(output)
        assert index.sids().tolist() == [[0, 2], [2, 0], [3, 1]]
        assert index.attributes.column_names == []


def test_files_of_the_field(tmp_path):
    rows = [("a", "3-1"), ("b", "0-2"), ("c", "3-1"), ("d", "2-0")]
    tokens = {item: [f"<a_{sid[0]}>", f"<b_{sid[2]}>"] for item, sid in rows}
    (tmp_path / "tokens.json").write_text(json.dumps(tokens))
    (tmp_path / "by_sid.json").write_text(
        json.dumps({"<a_3><b_1>": ["a", "c"], "<a_0><b_2>": "b", "<a_2><b_0>": ["d"]})
    )
    (tmp_path / "items.csv").write_text("\ufeffitem_id,codes\n" + "".join(f"{item},{sid}\n" for item, sid in rows))
    lines = [json.dumps({"item_id": item, "sid": sid}) for item, sid in tokens.items()]
    (tmp_path / "items.jsonl").write_text("\n".join(lines))
    (tmp_path / "spark").mkdir()
    (tmp_path / "spark" / "_SUCCESS").touch()
    for part, item in enumerate(tokens):
        rows_of_part = pa.table({"item_id": [item], "sid": [tokens[item]]})
        pq.write_table(rows_of_part, tmp_path / "spark" / f"part-{part}.parquet")
    for words in (
        ["tokens.json"],
        ["by_sid.json"],
        ["items.csv", "--sid", "codes"],
        ["items.jsonl"],
        ["spark"],
        ["spark/part-*.parquet"],
        ["spark/part-0.parquet", "spark/part-1.parquet", "spark/part-[23].parquet"],
        ["spark", "--memory", "100MB"],
    ):
        done = run("build", *words, "-o", "x", "--overwrite", "--codebook-sizes", "4", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        index = hr.load_index(tmp_path / "x")
        assert dict(zip(index.item_ids.to_pylist(), index.sids_of(index.item_ids).tolist(), strict=True)) == {
            "a": [3, 1],
            "b": [0, 2],
            "c": [3, 1],
            "d": [2, 0],
        }
        assert index.codebook_sizes == (4, 4)


def test_an_error_of_build_names_the_file_and_the_row(tmp_path):
    (tmp_path / "items.csv").write_text("item_id,codes\na,3-1\nb,x\n")
    said = run("build", "items.csv", "-o", "x", cwd=tmp_path).stderr
    assert "items.csv: there is no SID column 'sid'" in said
    assert "can hold SIDs: codes" in said
    said = run("build", "items.csv", "-o", "x", "--sid", "codes", cwd=tmp_path).stderr
    assert "items.csv: row 1 of column 'codes': expected a list of integer codes, tokens" in said
    (tmp_path / "items.json").write_text('{"a": [1]}')
    said = run("build", "items.json", "-o", "x", "--item-id", "id", cwd=tmp_path).stderr
    assert "item_id: only for files with one object per item" in said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["build", "missing.parquet", "-o", "x"], "missing.parquet does not exist"),
        (["build", "films.csv", "-o", "x"], "films.csv does not exist"),
        (["build", "films.parquet", "films.npy", "-o", "x"], "expected files of one kind"),
        (
            ["build", "films.parquet", "-o", "x", "--sid", "codes"],
            "no SID column 'codes'; the columns are name, sid, year",
        ),
        (["build", "films.parquet", "-o", "x", "--sid", "year"], "must hold lists of codes; it holds int64"),
        (["build", "films.parquet", "-o", "x", "--item-id", "asin"], "no item id column 'asin'"),
        (["build", "films.parquet", "-o", "x", "--codebook-sizes", "3"], "row 0, level 0: code 3 is out of range"),
        (["build", "films.parquet", "-o", "x", "--dense-levels", "7"], "level 7 does not exist"),
        (["build", "films.parquet", "-o", "films.parquet"], "is a file; an index is saved as a folder"),
        (["build", "films.parquet", "-o", "."], "holds 'films.parquet', which is not part of an index"),
        (["inspect", "missing"], "missing does not exist"),
        (["verify", "films.parquet"], "films.parquet"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_1(films, words, expected):
    done = run(*words, cwd=films.parent)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("hedgerow: ")
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(path.name for path in films.parent.iterdir()) == ["films.parquet"]


def test_verify_prints_errors_as_json(tmp_path):
    done = run("verify", tmp_path / "missing", "--json")
    assert done.returncode == 1
    facts = json.loads(done.stdout)
    assert facts["valid"] is False
    assert "does not exist" in facts["error"]


def test_version_and_module():
    done = subprocess.run([sys.executable, "-m", "hedgerow", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"hedgerow {hr.__version__}\n"


def test_exit_code_of_a_process(tmp_path):
    command = [sys.executable, "-m", "hedgerow", "inspect", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("hedgerow: ")


def test_build_states_its_defaults(films, tmp_path):
    done = run("build", films, "-o", tmp_path / "x")
    assert "item ids: row numbers; name a column with --item-id" in done.stdout
    assert "codebook sizes: 4, 3 (the largest code of each level + 1" in done.stdout


def test_build_within_memory(films, tmp_path):
    built = run("build", films, "-o", tmp_path / "x", "--item-id", "name", "--memory", "1MB", "--json")
    assert built.returncode == 0, built.stderr
    assert json.loads(built.stdout)["sids"] == 3
    assert hr.load_index(tmp_path / "x").item_ids.to_pylist() == ["b", "c", "a", "d"]
    for memory in ("much", "4", "500KB"):
        done = run("build", films, "-o", tmp_path / "y", "--memory", memory)
        assert done.returncode == 2
        assert "500MB or 4GB" in " ".join(done.stderr.split())
    assert run("build", films.with_suffix(".json"), "-o", tmp_path / "y", "--memory", "1MB").returncode == 2


@pytest.mark.parametrize("options", [[], ["--memory", "1MB"]])
def test_build_replaces_an_index_only_with_overwrite(films, options):
    words = ("build", "films.parquet", "-o", "x", "--item-id", "name", *options)
    assert run(*words, cwd=films.parent).returncode == 0
    other = pa.table({"name": ["e"], "sid": [[1, 1]]})
    pq.write_table(other, films)
    refused = run(*words, cwd=films.parent)
    assert refused.returncode == 1
    assert "x exists already. Choose another path, or pass --overwrite." in refused.stderr
    assert hr.load_index(films.parent / "x").num_items == 4
    assert run(*words, "--overwrite", cwd=films.parent).returncode == 0
    assert hr.load_index(films.parent / "x").item_ids.to_pylist() == ["e"]


@pytest.mark.parametrize("source", ["x", "x/*.parquet", "link"])
def test_build_does_not_replace_its_input(films, source):
    folder = films.parent
    assert run("build", films, "-o", folder / "x").returncode == 0
    (folder / "link").symlink_to(folder / "x")
    refused = run("build", source, "-o", "x", "--overwrite", cwd=folder)
    assert refused.returncode == 1
    assert f"x: the output would replace the input {source}." in refused.stderr
    assert hr.load_index(folder / "x").num_items == 4


def test_build_of_embeddings_names_semantic_ids(tmp_path):
    np.save(tmp_path / "emb.npy", np.ones((4, 3), np.float32))
    refused = run("build", "emb.npy", "-o", "x", cwd=tmp_path)
    assert refused.returncode == 1
    assert "emb.npy holds float32 numbers; SIDs are integers." in refused.stderr
    assert "hedgerow semantic-ids emb.npy -o emb.parquet" in refused.stderr


def test_verify_a_damaged_index(films, tmp_path):
    index = tmp_path / "x.hedgerow"
    assert run("build", films, "-o", index).returncode == 0
    trie = next(index.glob("trie-*"))
    content = bytearray(trie.read_bytes())
    content[-1] ^= 1
    trie.write_bytes(content)
    done = run("verify", index)
    assert done.returncode == 1
    assert "was altered or damaged" in done.stderr


@pytest.mark.parametrize(
    "words", [["build"], ["build", "x"], ["nothing"], ["build", "x.npy", "-o", "y", "--dense-levels", "a"]]
)
def test_wrong_usage_is_exit_code_2(words):
    assert CliRunner().invoke(app, words).exit_code == 2


@pytest.mark.parametrize("verb", ["build", "inspect", "verify", "demo", "retrieve", "explain"])
def test_help_has_an_example(verb):
    done = CliRunner().invoke(app, [verb, "--help"])
    assert done.exit_code == 0
    assert f"Example: hedgerow {verb}" in done.output


def test_json_is_valid_and_one_line(capsys):
    facts = {"a": [float("nan"), -float("inf"), 0.5], "b": {"c": (float("inf"),)}, "d": date(2024, 1, 2)}
    print_json(facts | {"text": "é\u2028\x85\u2029"}, indent=None)
    (line,) = capsys.readouterr().out.splitlines()

    def refuse(constant):
        raise AssertionError(constant)

    expected = {"a": [None, None, 0.5], "b": {"c": [None]}, "d": "2024-01-02", "text": "é\u2028\x85\u2029"}
    assert json.loads(line, parse_constant=refuse) == expected


def test_progress_where_stderr_is_no_terminal(monkeypatch, capsys):
    from hedgerow.cli import common

    monkeypatch.setattr(common, "PROGRESS_SECONDS", 0.0)
    with common.progress_bar(enabled=True) as progress:
        progress("train", 1_000, 20_000)
    assert "train: 1,000 of 20,000" in capsys.readouterr().err
    with common.progress_bar(enabled=False) as progress:
        progress("train", 1, 2)
    assert capsys.readouterr().err == ""
