"""`hedgerow explain` with the films demo, and with a model and an index from folders."""

import json
import re
import shlex

import pytest
from commands import assert_refused

pytest.importorskip("torch")
pytest.importorskip("transformers")

from tiny import TOKENS

from hedgerow.cli.explain import LEGEND
from hedgerow.hf import Retriever


class TestExplain:
    def test_text_table_and_json_equal_the_retriever(self, call, shop):
        for item in ("t3", "t30", shop[1].retrieve("w5 w6")[0].item_ids[0]):
            expected = shop[1].explain("w5 w6", item, beam_width=5, k=2)
            words = ("explain", "-p", "w5 w6", "--item", item, "--beam-width", "5", "-k", "2")
            code, stdout, stderr = call(*words)
            assert (code, stderr) == (0, "")
            sentence, head, *rest = stdout.splitlines()
            rows, legend = rest[: len(expected.sid)], rest[len(expected.sid) :]
            assert sentence == str(expected)
            assert head.split() == ["level", "code", "score", "rank", "candidates", "kept", "to", "beat"]
            assert [row.split()[1] for row in rows] == list(map(str, expected.sid))
            assert " ".join(legend).split() == LEGEND.split()
            facts = json.loads(call(*words, "--json")[1])
            assert (facts["outcome"], facts["rank"], facts["text"]) == (expected.outcome, expected.rank, str(expected))

    def test_options_reach_the_retriever(self, call, shop):
        options = {"normalize": "allowed", "temperature": 2.5}
        retriever = Retriever(shop[1].model, shop[1].index, TOKENS, **options)
        expected = retriever.explain([5, 6], "t3", beam_width=5, k=2)
        words = ("--item", "t3", "--beam-width", "5", "-k", "2", "--normalize", "allowed", "--temperature", "2.5")
        facts = json.loads(call("explain", "-p", "w5 w6", *words, "--json")[1])
        scores = [level["score"] for level in facts["levels"]]
        assert scores == pytest.approx([level.score for level in expected.levels], abs=1e-5)
        assert scores != pytest.approx(
            [level.score for level in shop[1].explain([5, 6], "t3", beam_width=5).levels], abs=1e-5
        )

    def test_the_example_of_its_help_runs(self, call):
        example = re.search(
            "Example: hedgerow (explain .*)", " ".join(call("explain", "--help", on_shop=False)[1].split())
        )
        assert example is not None
        code, stdout, _ = call(*shlex.split(example[1]), on_shop=False)
        assert code == 0
        assert stdout.startswith("Item ")

    @pytest.mark.parametrize(("name", "item"), [("title=Thing [7]", "t7"), ("price=0.5", "t4"), ("t9", "t9")])
    def test_items_by_an_attribute_and_by_id(self, call, name, item):
        assert json.loads(call("explain", "-p", "w5", "--item", name, "--json")[1])["item_id"] == item

    def test_the_sentence_has_the_title_that_was_asked_for(self, call):
        words = ("explain", "-p", "w5", "--item")
        assert call(*words, "title=Thing [7]")[1].startswith("Item 'Thing [7]', id 't7', SID ")
        assert call(*words, "title=Thing [7]", "--exclude", "t7")[1].startswith(
            "Item 'Thing [7]', id 't7', is excluded"
        )
        assert call(*words, "t7")[1].startswith("Item 't7', SID ")

    def test_text_that_is_no_id_of_the_index(self, call):
        """The ids of the films are integers."""
        refused = call("explain", "-p", "A western", "--item", "Shane", on_shop=False)
        assert_refused(refused, "--item must be an item id of this index, of type int64; got 'Shane' (str): ")
        assert_refused(refused, "An item has this title: pass --item title=Shane, or the id ")
        unknown = call("explain", "-p", "A western", "--item", "5", on_shop=False)
        assert_refused(unknown, "item '5' is not in the index")

    def test_a_capped_item(self, call, shop):
        free = shop[1].retrieve("w5", k=20)[0]
        capped = shop[1].retrieve("w5", k=20, caps={"maker": 1})[0].item_ids
        item = next(item for item in free if item["maker"] and item["item_id"] not in capped)["item_id"]
        words = ("explain", "-p", "w5", "--item", item, "--caps", "maker=1", "-k", "20")
        assert "caps allow 1 item with maker 'someone', and better items fill this cap." in call(*words)[1]
        assert json.loads(call(*words, "--json")[1])["capped"] == ["maker", "someone", 1]

    def test_an_item_that_does_not_exist(self, call):
        refused = call("explain", "-p", "w5", "--item", "t1500")
        assert_refused(refused, "item 't1500' is not in the index, so no prompt can return it. Similar ids: t")
        assert_refused(call("explain", "-p", "w5", "--item", "?"), "no prompt can return it.\n")

    @pytest.mark.parametrize(
        ("item", "expected"),
        [
            ("titel=Alien", "There is no attribute 'titel'; did you mean 'title'?"),
            ("x=1", "There is no attribute 'x'; the attributes are title, year, kinds, maker, price."),
        ],
    )
    def test_an_attribute_that_does_not_exist(self, call, item, expected):
        assert_refused(call("explain", "-p", "w5", "--item", item), expected)

    def test_a_title_instead_of_an_id(self, call):
        refused = call("explain", "-p", "w5", "--item", "Thing [7]")
        assert_refused(refused, "An item has this title: pass --item 'title=Thing [7]', or the id 't7'.")

    @pytest.mark.parametrize(
        ("item", "expected"),
        [
            ("title=Nothing", "0 items have title 'Nothing'."),
            ("year=1910", "2 items have year '1910': 't21', 't20'. Pass one of these ids."),
            ("maker=someone", "75 items have maker 'someone': "),
            ("year=long ago", "0 items have year 'long ago'."),
            ("kinds=a", "kinds"),
        ],
    )
    def test_an_attribute_of_no_item_or_several(self, call, item, expected):
        assert_refused(call("explain", "-p", "w5", "--item", item), expected)

    def test_names_the_rule_that_excludes_an_item_and_its_values(self, call):
        pytest.importorskip("duckdb")
        words = ("explain", "-p", "w5", "--item", "t121", "--where", "price < 1 AND maker <> 'year'")
        code, stdout, _ = call(*words)
        assert code == 0
        expected = (
            "Item 't121' is not in the constraint set \"price < 1 AND maker <> 'year'\", so this search cannot return "
        )
        assert stdout.replace("\n", " ").startswith(expected + "it. Its values: maker null, price 15.125.")
        found = json.loads(call(*words, "--json")[1])
        assert (found["rules"], found["attributes"]) == ([words[-1]], {"maker": None, "price": 15.125})

    def test_plot(self, call, tmp_path):
        pytest.importorskip("matplotlib")
        path = tmp_path / "beams.png"
        code, stdout, stderr = call("explain", "-p", "w5", "--plot", path)
        assert (code, stdout) == (0, "")
        assert "wrote" in stderr
        assert path.read_bytes().startswith(b"\x89PNG")
        path.unlink()
        code, stdout, _ = call("explain", "-p", "w5", "--item", "t3", "--plot", path, "--json")
        assert json.loads(stdout)["item_id"] == "t3"
        assert path.exists()

    def test_plot_without_matplotlib_fails_before_loading(self, call, monkeypatch):
        monkeypatch.setattr("hedgerow.cli.explain.find_spec", lambda _: None)
        words = ("explain", "-p", "w5", "--plot", "x.png", "--model", "none", "--index", "none")
        refused = call(*words, on_shop=False)
        assert_refused(refused, "--plot needs the package matplotlib, which is not installed. Install it with: pip ")
        assert_refused(refused, "pip install 'hedgerow[plot]'")

    def test_plot_that_cannot_be_written(self, call, tmp_path):
        pytest.importorskip("matplotlib")
        assert_refused(call("explain", "-p", "w5", "--plot", tmp_path / "no" / "beams.png"), "cannot be written")
        assert_refused(call("explain", "-p", "w5", "--plot", "beams.gif"), "must end in .png, .svg, .pdf")
        for path in ("beams.gif", tmp_path / "no" / "beams.png"):
            refused = call("explain", "-p", "w5", "--plot", path, "--model", "none", "--index", "none", on_shop=False)
            assert_refused(refused, "beams")  # before the model and the index are opened
