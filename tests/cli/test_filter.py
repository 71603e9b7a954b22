"""`hedgerow filter` and `hedgerow inspect --where`."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import hedgerow as hr
from hedgerow.cli.main import app

pytest.importorskip("duckdb")

YEARS = np.random.default_rng(0).integers(1990, 2010, 200)
SIDS = np.random.default_rng(1).integers(0, 9, (200, 3))


def run(*words, fails=None, error: type[Exception] = hr.ConstraintError):
    done = CliRunner().invoke(app, [str(word) for word in words])
    if fails is None:
        assert done.exit_code == 0, done.output
    else:
        assert isinstance(done.exception, error)
        assert fails in str(done.exception)
    return done.output


@pytest.fixture
def catalog():
    ids = [f"t{row}" for row in range(200)]
    return hr.Catalog(SIDS, codebook_sizes=9, item_ids=ids, attributes={"year": YEARS})


@pytest.fixture
def path(tmp_path, catalog):
    hr.build_index(catalog).save(tmp_path / "items.hedgerow")
    return tmp_path / "items.hedgerow"


class TestFilter:
    def test_equals_a_build_of_the_filtered_catalog(self, path, catalog, tmp_path):
        shown = run("filter", path, "--where", "year >= 2000", "-o", tmp_path / "recent.hedgerow")
        many = int((YEARS >= 2000).sum())
        assert f"{many} of 200 items" in shown
        hr.build_index(catalog.filter(YEARS >= 2000)).save(tmp_path / "built.hedgerow")
        assert_same_files(tmp_path / "recent.hedgerow", tmp_path / "built.hedgerow")
        run("verify", tmp_path / "recent.hedgerow")

    def test_the_expression_as_an_argument(self, path, tmp_path):
        run("filter", path, "--where", "year >= 2000", "-o", tmp_path / "option")
        run("filter", path, "year >= 2000", "-o", tmp_path / "argument")
        assert_same_files(tmp_path / "option", tmp_path / "argument")

    @pytest.mark.parametrize(("words", "given"), [((), "neither"), (("year > 1", "--where", "year > 2"), "both")])
    def test_one_expression(self, path, tmp_path, words, given):
        done = CliRunner().invoke(app, ["filter", str(path), *words, "-o", str(tmp_path / "new")])
        assert done.exit_code == 2
        assert f"pass one SQL expression; got {given}" in " ".join(done.output.replace("│", " ").split())
        assert not (tmp_path / "new").exists()

    def test_json_and_replacing_another_index(self, path, catalog, tmp_path):
        other = tmp_path / "other.hedgerow"
        run("filter", path, "year = 1994", "-o", other)
        refused = "exists already. Choose another path, or pass --overwrite."
        run("filter", path, "year = 1995", "-o", other, fails=refused, error=hr.ArgumentError)
        assert hr.load_index(other).num_items == int((YEARS == 1994).sum())
        facts = json.loads(run("filter", path, "year = 1995", "-o", other, "--overwrite", "--json"))
        assert (facts["path"], facts["items"], facts["of"]) == (str(other), int((YEARS == 1995).sum()), 200)
        hr.build_index(catalog.filter(YEARS == 1995)).save(tmp_path / "built.hedgerow")
        assert_same_files(other, tmp_path / "built.hedgerow")

    @pytest.mark.parametrize("options", [[], ["--overwrite"]])
    def test_does_not_replace_its_input(self, path, options):
        words = ("filter", path, "year = 1995", "-o", path, *options)
        run(*words, fails="the output would replace the input", error=hr.ArgumentError)
        assert hr.load_index(path).num_items == 200

    def test_rejects_an_empty_index_unless_allowed(self, path, tmp_path):
        run("filter", path, "year > 3000", "-o", tmp_path / "none", fails="true for none of the 200 items")
        assert not (tmp_path / "none").exists()
        run("filter", path, "year > 3000", "-o", tmp_path / "none", "--allow-empty")
        assert hr.load_index(tmp_path / "none").num_items == 0
        run("filter", tmp_path / "none", "item_id = 't1'", "-o", tmp_path / "x", "--allow-empty")

    def test_an_invalid_rule_writes_nothing(self, path, tmp_path):
        run("filter", path, "colour = 'red'", "-o", tmp_path / "none", fails="The columns are item_id (string), year")
        assert not (tmp_path / "none").exists()


def assert_same_files(one, other):
    def contents(folder):
        return {file.name: file.read_bytes() for file in folder.iterdir()}

    assert contents(one) == contents(other)


class TestInspect:
    def test_json_has_the_numbers_of_the_sets(self, path):
        index = hr.load_index(path)
        rules = ["year >= 2000", "year > 3000"]
        found = json.loads(run("inspect", path, "--where", rules[0], "--where", rules[1], "--json"))["rules"]
        for rule, facts in zip(rules, found, strict=True):
            left = index.filter(index.where(rule))
            assert (facts["where"], facts["items"], facts["sids"]) == (rule, left.num_items, left.num_sids)
            assert facts["nodes_per_level"] == list(left.nodes_per_level)
            assert facts["share"] == left.num_items / 200
            assert facts["nbytes"] == index.where(rule).nbytes
        assert "rules" not in json.loads(run("inspect", path, "--json"))

    def test_table(self, path):
        shown = run("inspect", path, "--where", "year >= 2000")
        share = f"{100 * (YEARS >= 2000).mean():.1f} %"
        assert "year >= 2000" in " ".join(shown.split())
        assert share in shown
        assert "rules" not in run("inspect", path)

    def test_an_invalid_rule(self, path):
        run("inspect", path, "--where", "year", fails="must be true or false for each item")
