"""Indexes of ragged SIDs: compared with sets of tuples, saved, verified, and on the command line."""

import dataclasses
import json
import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from naive import same_trie
from ragged import Ragged, padded, ragged
from typer.testing import CliRunner

import hedgerow as hr
from hedgerow.cli.main import app
from hedgerow.index.manifest import read_manifest
from hedgerow.index.trie import codes_of_leaves
from hedgerow.index.verify import verify_trie

NAMES = Ragged([(3,), (3, 1), (3, 1, 4), (0, 2), (0, 2), (2, 0, 0)], (4, 3, 5))


@pytest.fixture
def index() -> hr.TrieIndex:
    return hr.build_index(hr.Catalog(NAMES.sids, codebook_sizes=NAMES.sizes, item_ids=list("fedcba"), ragged=True))


@given(case=ragged())
def test_index_equals_sets_of_tuples(case):
    index, levels = hr.build_index(case.catalog), len(case.sizes)
    distinct = set(case.sids)
    ends = case.ends()
    assert index.ragged == (levels > 1)
    assert index.end_codes == ends
    assert index.codebook_sizes == tuple(size + (end is not None) for size, end in zip(case.sizes, ends, strict=True))
    assert (index.num_items, index.num_sids) == (len(case.sids), len(distinct))
    expected = sorted(distinct, key=case.as_codes)
    assert index.sids().tolist() == [padded(sid, levels) for sid in expected]
    assert index.find(case.padded).tolist() == [expected.index(sid) for sid in case.sids]
    assert [case.sids[row] for row in index.item_ids.to_pylist()] == sorted(case.sids, key=case.as_codes)
    assert index.nodes_per_level == tuple(
        len({case.as_codes(sid)[:depth] for sid in distinct}) for depth in range(1, levels + 1)
    )
    prefixes = {sid[:depth] for sid in distinct for depth in range(len(sid))}
    for prefix in prefixes | distinct:
        if len(prefix) < levels:
            codes = {sid[len(prefix)] for sid in distinct if len(sid) > len(prefix) and sid[: len(prefix)] == prefix}
            codes |= {ends[len(prefix)]} if prefix in distinct else set()
            assert index.allowed_codes(prefix).tolist() == sorted(codes)
    largest = max(map(case.sids.count, distinct))
    assert index.collisions()[2] == (largest if largest > 1 else 0)


def test_find_accepts_lists_matrices_and_codes_of_beams(index):
    queries = [[3], [3, 1, 4], [0], [0, 2], [3, 1, 4, 1], [9], [], [3, -1, 4], [-1, 2], [0, 3]]
    expected = [4, 2, -1, 0, -1, -1, -1, -1, -1, -1]
    assert index.find(queries).tolist() == expected
    assert index.contains(queries).tolist() == [leaf >= 0 for leaf in expected]
    assert index.find([padded(tuple(sid), 6) for sid in queries]).tolist() == expected
    assert index.find([[3], [0]]).tolist() == [4, -1]
    assert index.find(np.array([[3]], np.uint8)).tolist() == [4]
    assert index.find(np.array([[2**64 - 1, 1], [3, 2**64 - 1]], np.uint64)).tolist() == [-1, -1]
    assert index.find(codes_of_leaves(index)).tolist() == [0, 1, 2, 3, 4]
    assert index.find(np.zeros((0, 2), int)).tolist() == []
    with pytest.raises(hr.CatalogError, match="row 1, level 0: 'x'"):
        index.find([[3], ["x", 1]])


def test_allowed_codes_include_the_end_code_after_a_sid(index):
    assert index.allowed_codes([3]).tolist() == [1, 3]
    assert index.allowed_codes([3, 1]).tolist() == [4, 5]
    assert index.allowed_codes([3, 3]).tolist() == [5]
    assert index.allowed_codes([0]).tolist() == [2]


def test_save_and_load(index, tmp_path):
    index.save(tmp_path / "x")
    assert read_manifest(tmp_path / "x")["ragged"] is True
    for mmap in (False, True):
        loaded = hr.load_index(tmp_path / "x", mmap=mmap)
        assert same_trie(loaded, index)
        assert loaded.end_codes == index.end_codes == (None, 3, 5)
        assert loaded.find([[3], [3, 1]]).tolist() == [4, 3]
    assert same_trie(verify_trie(tmp_path / "x"), index)
    assert pickle.loads(pickle.dumps(index)).end_codes == index.end_codes
    hr.build_index(hr.Catalog([[1], [0]], ragged=True)).save(tmp_path / "y")
    assert "ragged" not in read_manifest(tmp_path / "y")


def rewritten(folder: Any, **changes: Any) -> None:
    from hedgerow.index.manifest import digest_of

    manifest = read_manifest(folder) | changes
    (folder / "manifest.json").write_text(json.dumps(manifest | {"sha256": digest_of(manifest)}))


@pytest.mark.parametrize("value", [False, 1, "true", None])
def test_rejects_a_manifest_whose_ragged_is_not_true(index, tmp_path, value):
    index.save(tmp_path / "x")
    rewritten(tmp_path / "x", ragged=value)
    with pytest.raises(hr.IndexFileError, match="altered or damaged"):
        hr.load_index(tmp_path / "x")


@pytest.mark.parametrize("sids", [[[1], [0]], [[1, 0], [0, 0]]])
def test_rejects_a_manifest_without_room_for_end_codes(sids, tmp_path):
    hr.build_index(hr.Catalog(sids)).save(tmp_path / "x")
    rewritten(tmp_path / "x", ragged=True)
    with pytest.raises(hr.IndexFileError, match="altered or damaged"):
        hr.load_index(tmp_path / "x")


@pytest.mark.parametrize(
    "sids",
    [
        [[0, 2, 2], [1, 2, 1]],  # A code follows the end code.
        [[0, 2, 2], [0, 2, 1], [1, 0, 0]],  # The end code, or another code, follows the end code.
    ],
)
def test_verify_rejects_a_sid_that_continues_after_its_end(sids, tmp_path):
    index = hr.build_index(hr.Catalog(sids, codebook_sizes=3))
    levels = (index.levels[0], *(dataclasses.replace(level, end=2) for level in index.levels[1:]))
    dataclasses.replace(index, levels=levels).save(tmp_path / "x")
    assert hr.load_index(tmp_path / "x", verify="none").ragged
    for load in (hr.load_index, verify_trie):
        with pytest.raises(hr.IndexFileError, match="level 2: a SID continues after its end code"):
            load(tmp_path / "x")


def test_repr_describe_and_collisions(index):
    assert repr(index).startswith("TrieIndex(items=6, sids=5, levels=3, ragged=True, nodes=")
    assert "3 + end" in index.describe()
    assert index.collisions() == (2, 1, 2)


def test_results_rejects_beams_of_another_index(index):
    beams = hr.beam_search(
        index, lambda beams: np.zeros((*beams.states.shape, (4, 4, 6)[beams.level])), batch_size=1, beam_width=9
    )
    other = hr.build_index(hr.Catalog([[3], [3, 2], [1, 1, 1], [1, 1], [1]], codebook_sizes=NAMES.sizes, ragged=True))
    with pytest.raises(hr.ArgumentError, match="another index"):
        other.results(beams)


def test_command_line(tmp_path):
    runner = CliRunner()
    (tmp_path / "names.json").write_text(json.dumps(dict(zip("abc", NAMES.sids, strict=False))))
    np.save(tmp_path / "names.npy", np.array([padded(sid, 3) for sid in NAMES.sids[:3]]))
    for source in ("names.json", "names.npy"):
        refused = runner.invoke(app, ["build", str(tmp_path / source), "-o", str(tmp_path / "x"), "--overwrite"])
        assert isinstance(refused.exception, hr.CatalogError)
        assert "--ragged" in str(refused.exception)
        words = ["build", str(tmp_path / source), "-o", str(tmp_path / "x"), "--overwrite", "--ragged"]
        built = runner.invoke(app, words)
        assert built.exit_code == 0, built.output
        assert "codebook sizes: 4, 2 + end, 5 + end" in built.output
        assert hr.load_index(tmp_path / "x").contains([[3], [3, 1]]).all()
    assert runner.invoke(app, ["verify", str(tmp_path / "x")]).exit_code == 0
    facts = json.loads(runner.invoke(app, ["inspect", str(tmp_path / "x"), "--json"]).output)
    assert [level["end"] for level in facts["levels"]] == [None, 2, 5]
    pq.write_table(pa.table({"sid": NAMES.sids}), tmp_path / "x.parquet")
    words = ["build", str(tmp_path / "x.parquet"), "-o", str(tmp_path / "y"), "--memory", "1GB", "--ragged"]
    refused = runner.invoke(app, words)
    assert refused.exit_code == 2
    assert "ragged SIDs cannot be built on disk" in " ".join(refused.output.replace("│", " ").split())
