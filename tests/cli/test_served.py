"""`inspect`, `verify`, `diff` and `filter` of a live index: they show what it serves."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import hedgerow as hr
from hedgerow.cli.main import app

SIDS = np.random.default_rng(1).integers(0, 9, (60, 3))
PATHS = ("shop.live", "rebuilt.hedgerow")
YEARS = [1990 + row for row in range(60)]


def run(*words, fails=None, stdin=None):
    done = CliRunner().invoke(app, [str(word) for word in words], input=stdin)
    if fails is None:
        assert done.exit_code == 0, (done.output, done.exception)
    else:
        assert done.exit_code in (1, 2)
        assert fails in done.output + str(done.exception)
    return done.output


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A live index of version 3: the index of version 2, from which items were removed."""
    monkeypatch.chdir(tmp_path)
    catalog = hr.Catalog(SIDS, codebook_sizes=9, item_ids=np.arange(60), attributes={"year": YEARS})
    live = hr.LiveIndex.create("shop.live", hr.build_index(catalog.filter(np.arange(60) < 50)))
    live.update(catalog)
    live.remove([0, 7, 59])
    hr.build_index(catalog.filter(~np.isin(np.arange(60), [0, 7, 59]))).save("rebuilt.hedgerow")
    return live


@pytest.mark.usefixtures("shop")
def test_inspect():
    pytest.importorskip("duckdb")
    live, built = (json.loads(run("inspect", path, "--where", "year < 2000", "--json")) for path in PATHS)
    assert live.pop("live") == {"version": 3, "removed": 3}
    # The files still have the removed items.
    assert live.pop("file_bytes") != built.pop("file_bytes")
    assert live == built
    assert live["rules"][0]["items"] == 8
    said = run("inspect", "shop.live")
    assert said.startswith("version 3 of a live index, without 3 removed items\n")
    assert "version" not in run("inspect", "rebuilt.hedgerow")


def test_verify(shop):
    assert "(version 3 of a live index, without 3 removed items)" in run("verify", "shop.live")
    facts = json.loads(run("verify", "shop.live", "--json"))
    assert (facts["valid"], facts["items"], facts["live"]["version"]) == (True, 60, 3)
    shop.rollback(1)
    assert "(version 1 of a live index)" in run("verify", "shop.live")
    trie = next(path for path in (shop.path / "versions" / "1").iterdir() if path.suffix == ".safetensors")
    content = bytearray(trie.read_bytes())
    content[-1] ^= 1
    trie.write_bytes(content)
    run("verify", "shop.live", fails="trie")


@pytest.mark.usefixtures("shop")
def test_diff():
    same = json.loads(run("diff", *PATHS, "--json"))
    assert set(same["counts"].values()) == {0}
    hr.load_index("rebuilt.hedgerow").filter(lambda attributes: np.asarray(attributes["year"]) > 1995).save("late")
    counts = json.loads(run("diff", "shop.live", "late", "--json"))["counts"]
    assert (counts["added"], counts["removed"]) == (0, 5)


@pytest.mark.usefixtures("shop")
def test_filter():
    pytest.importorskip("duckdb")
    for path in PATHS:
        run("filter", path, "year < 2000", "-o", f"{path}-filtered")
    found, expected = (hr.load_index(f"{path}-filtered") for path in PATHS)
    assert found.item_ids.to_pylist() == expected.item_ids.to_pylist()
    assert len(found) == 8


def test_publish(shop):
    hr.build_index(hr.Catalog(SIDS[:3], codebook_sizes=9, item_ids=[1, 2, 3])).save("small")
    run("live", "publish", "shop.live", "rebuilt.hedgerow")
    assert (shop.refresh().number, shop.version.num_items) == (4, 57)
    run("live", "publish", "shop.live", "small", fails="shrunk")
    run("live", "publish", "shop.live", "small", "--allow", "shrunk")
    assert shop.refresh().num_items == 3
    run("live", "publish", "shop.live", "nothing", fails="does not exist")


def test_remove_ids_of_a_file(shop, tmp_path):
    (tmp_path / "gone.txt").write_text("\ufeff1\r\n\n 2\n", encoding="utf-8")
    run("live", "remove", "shop.live", "--input", "gone.txt")
    run("live", "remove", "shop.live", "--input", "-", stdin="3\n4\n")
    assert shop.refresh().removed_rows.size == 7
    assert shop.version.num_items == 53
    (tmp_path / "none.txt").write_text("\n")
    for words, fails in (
        (["--input", "none.txt"], "none.txt contains no id; expected one per line."),
        (["--input", "missing.txt"], "missing.txt cannot be read"),
        ([], "pass ids, or a file of ids"),
        (["5", "--input", "gone.txt"], "pass ids, or a file of ids"),
    ):
        run("live", "remove", "shop.live", *words, fails=fails)
    (tmp_path / "x.txt").write_text("x\n")
    run("live", "remove", "shop.live", "--input", "x.txt", fails="ID must be item ids of this index, of type int64")
