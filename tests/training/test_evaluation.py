"""Evaluation: metrics, groups, intervals, files, and the split of a trained model."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import hedgerow as hr
from hedgerow import metrics
from hedgerow.errors import ArgumentError, MissingDependencyError

for package in ("torch", "transformers", "implicit", "sklearn"):
    pytest.importorskip(package)

from tiny import CODES, TOKENS, catalog, new_model, tokenizer  # noqa: E402

from hedgerow.hf import Retriever  # noqa: E402
from hedgerow.training import (  # noqa: E402
    BlendSpec,
    Histories,
    ModelRanker,
    Questions,
    Ranked,
    evaluate,
    evaluate_rankers,
    leave_one_out,
    plot_evaluation,
    popularity,
    split_by_time,
)
from hedgerow.training.evaluation import intervals  # noqa: E402

ITEMS = 12
TRAINING = [np.array([0, 1, 2]), np.array([1, 2]), np.array([2, 3])]
QUESTIONS = Questions([np.array([0]), np.array([1, 4]), np.array([5])], np.array([2, 7, 3]), np.arange(3))


class Fixed:
    """A ranker with fixed lists."""

    def __init__(self, lists):
        self.lists = np.array(lists)

    def rank(self, questions, k, **_):
        found = np.full((len(questions), k), -1)
        found[:, : self.lists.shape[1]] = self.lists[:, :k]
        return Ranked(found, np.where(found >= 0, 1.0, -np.inf))

    def scores(self, questions, items, **_):
        raise NotImplementedError


def evaluated(lists, **options):
    return evaluate_rankers({"fixed": Fixed(lists)}, QUESTIONS, TRAINING, ITEMS, **options)


class TestRows:
    def test_metrics_of_all_warm_and_cold_targets(self):
        # Ranks 2 (warm), 1 (cold) and none (warm).
        found = evaluated([[1, 2, 3], [7, 0, 2], [1, 2, 4]], ks=[1, 2])
        means = {row.targets: {name: value.mean for name, value in row.metrics.items()} for row in found.rows}
        assert {row.targets: row.questions for row in found.rows} == {"all": 3, "warm": 2, "cold": 1}
        assert means["all"]["Recall@1"] == pytest.approx(1 / 3)
        assert means["all"]["Recall@2"] == pytest.approx(2 / 3)
        assert means["warm"]["NDCG@10"] == pytest.approx(1 / np.log2(3) / 2)
        assert means["warm"]["MRR@2"] == pytest.approx(1 / 4)
        assert means["cold"]["Recall@1"] == 1
        assert means["all"]["coverage@10"] == pytest.approx(6 / ITEMS)
        assert means["cold"]["coverage@10"] == pytest.approx(3 / ITEMS)
        # 0 of 3 users know item 7, one item 0, and three item 2: minus log2 of 1/4, 2/4 and 4/4.
        assert means["cold"]["novelty@10"] == pytest.approx((2 + 1 + 0) / 3)

    def test_only_cold_candidates(self):
        questions = Questions([np.array([0]), np.array([1])], np.array([7, 8]), np.arange(2))
        every = {"popular": popularity(TRAINING, ITEMS), "fixed": Fixed([[7, 8], [9, 8]])}
        found = evaluate_rankers(every, questions, TRAINING, ITEMS, among="cold")
        assert [(row.method, row.targets) for row in found.rows] == [("popular", "cold"), ("fixed", "cold")]
        assert found.row("fixed", "cold").metrics["coverage@10"].mean == pytest.approx(3 / 8)
        with pytest.raises(ArgumentError, match="fixed returns items that are not among the candidates"):
            evaluate_rankers({"fixed": Fixed([[7, 2], [9, 8]])}, questions, TRAINING, ITEMS, among="cold")
        with pytest.raises(ArgumentError, match="there are no candidates"):
            evaluate_rankers(every, questions, [np.arange(ITEMS)], ITEMS, among="cold")

    @pytest.mark.parametrize(
        ("lists", "message"),
        [
            ([[1, 0, 3]] * 3, "fixed returns items of the history"),
            ([[2, 2, 3]] * 3, "fixed returns an item twice"),
        ],
    )
    def test_wrong_rankers_are_refused(self, lists, message):
        with pytest.raises(ArgumentError, match=message):
            evaluated(lists)

    def test_a_row_that_is_missing(self):
        with pytest.raises(ArgumentError, match=r"no row 'other' \(all\); the rows are 'fixed' \(all\)"):
            evaluated([[2, 3, 6]] * 3).row("other")

    def test_nothing_to_evaluate(self):
        with pytest.raises(ArgumentError, match="0 rankers, 3 questions and 4 cutoffs"):
            evaluate_rankers({}, QUESTIONS, TRAINING, ITEMS)


def test_intervals_without_hits():
    found = evaluated([[1, 2, 3], [7, 0, 2], [1, 2, 4]], ks=[1])
    nothing = found.row("fixed", "warm").metrics
    assert (nothing["Recall@1"].mean, nothing["Recall@1"].low) == (0, 0)
    assert nothing["Recall@1"].high == pytest.approx(1 - 0.025 ** (1 / 2))
    assert found.row("fixed", "cold").metrics["Recall@1"].low == pytest.approx(0.025)
    # Of one question: values that are no shares stay as they are.
    novelty = found.row("fixed", "cold").metrics["novelty@10"]
    assert novelty.low == novelty.mean == novelty.high


def test_intervals_equal_those_of_the_metrics():
    values = np.random.default_rng(0).random((400, 3)) < [0.1, 0.5, 0.9]
    for column, estimate in enumerate(intervals(values.astype(float), 0)):
        expected = metrics.bootstrap_ci(values[:, column])
        assert estimate.mean == pytest.approx(expected.mean)
        assert estimate.low == pytest.approx(expected.low, abs=0.008)
        assert estimate.high == pytest.approx(expected.high, abs=0.008)


def test_csv_has_all_figures_and_settings(tmp_path):
    found = evaluated([[1, 2, 3], [7, 0, 2], [1, 2, 4]], seed=3, settings={"split": {"method": "x"}})
    found.save_csv(tmp_path / "out.csv")
    with (tmp_path / "out.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == found.table().num_rows == 3 * 8
    assert {(line["seed"], line["split"], line["num_items"]) for line in lines} == {("3", '{"method": "x"}', "12")}
    assert lines[0]["method"] == "fixed"
    assert float(lines[0]["mean"]) == pytest.approx(1 / 3, abs=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]
    with pytest.raises(ArgumentError, match="cannot be written"):
        found.save_csv(tmp_path / "none" / "out.csv")


def test_plot(tmp_path, monkeypatch):
    found = evaluated([[1, 2, 3], [7, 0, 2], [1, 2, 4]])
    plot_evaluation(found, tmp_path / "out.svg")
    assert (tmp_path / "out.svg").stat().st_size > 0
    with pytest.raises(ArgumentError, match="no metric 'Recall@3'"):
        plot_evaluation(found, tmp_path / "out.svg", metric="Recall@3")
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"hedgerow\[plot\]"):
        plot_evaluation(found, tmp_path / "out.svg")


@pytest.fixture(scope="module")
def index():
    titles = {"title": [f"thing {row % 7} of kind {row % 3}" for row in range(150)]}
    items = [f"t{row}" for row in range(150)]
    return hr.build_index(hr.Catalog(catalog().sids, codebook_sizes=CODES, item_ids=items, attributes=titles))


@pytest.fixture(scope="module")
def histories(index):
    random = np.random.default_rng(0)
    items = np.concatenate([random.choice(140, 5, replace=False) for _ in range(40)])
    table = pa.table(
        {"user": np.repeat(np.arange(40), 5), "item_id": [f"t{i}" for i in items], "timestamp": np.tile(range(5), 40)}
    )
    return Histories.from_arrow(table, index)


@pytest.fixture(scope="module")
def retrievers(index):
    return [Retriever(new_model(name), index, TOKENS) for name in ("llama", "qwen3")]


class TestModel:
    def test_a_model_ranks_as_retrieve(self, index, histories, retrievers):
        questions = leave_one_out(histories).questions("test").sample(6)
        found = ModelRanker(retrievers[0], beam_width=10).rank(questions, 5)
        for row, history in enumerate(questions.histories):
            seen = index.item_ids.take(history).to_pylist()
            (results,) = retrievers[0].retrieve(retrievers[0].history_prompt(seen), beam_width=10, k=5, exclude=seen)
            assert found.items[row].tolist() == results.rows.tolist()
            np.testing.assert_allclose(found.scores[row], results.scores, atol=1e-4)

    def test_scores_of_given_items(self, index, histories, retrievers):
        questions = leave_one_out(histories).questions("test").sample(4)
        items = np.array([[3, 140, 9, -1], [7, 8, 0, 2], [9, -1, -1, -1], [1, 2, 3, 4]])
        scores = ModelRanker(retrievers[0]).scores(questions, items)
        assert (scores[items == -1] == -np.inf).all()
        for row, history in enumerate(questions.histories):
            wanted = items[row][items[row] >= 0]
            prompt = retrievers[0].history_prompt(index.item_ids.take(history).to_pylist())
            expected = retrievers[0].score(prompt, index.item_ids.take(wanted).to_pylist())
            np.testing.assert_allclose(scores[row][items[row] >= 0], expected, atol=1e-3)

    def test_several_models_average_probabilities(self, histories, retrievers):
        questions = leave_one_out(histories).questions("test").sample(4)
        items = np.tile(np.arange(20, 30), (4, 1))
        one, other = (np.exp(ModelRanker(retriever).scores(questions, items)) for retriever in retrievers)
        both = ModelRanker(retrievers, beam_width=8)
        np.testing.assert_allclose(np.exp(both.scores(questions, items)), (one + other) / 2, rtol=1e-3)
        found = both.rank(questions, 4)
        assert (np.diff(found.scores, axis=1) <= 0).all()
        drafts = [ModelRanker(retriever, beam_width=8).rank(questions, 8).items for retriever in retrievers]
        for row in range(4):
            assert {*found.items[row].tolist()} <= {*drafts[0][row].tolist(), *drafts[1][row].tolist()}

    def test_models_of_other_indexes_are_refused(self, retrievers):
        other = hr.build_index(hr.Catalog(catalog().sids, codebook_sizes=CODES))
        with pytest.raises(ArgumentError, match="same index"):
            ModelRanker([retrievers[0], Retriever(new_model("llama"), other, TOKENS)])


class TestEvaluate:
    def test_all_methods(self, index, histories, retrievers):
        progress = []
        quantizer = hr.semantic_ids(np.random.default_rng(0).random((150, 6)), levels=3, codebook_sizes=20).quantizer
        blends = [BlendSpec(("model", "item-knn")), BlendSpec(("model",), drafts=("text-knn",))]
        found = evaluate(
            retrievers,
            index,
            histories,
            text="title",
            quantizer=quantizer,
            blends=blends,
            users=10,
            beam_width=20,
            progress=lambda what, done, total: progress.append((what, done, total)),
        )
        methods = ["model", "popularity", "item-knn", "text-knn", "content-knn"]
        assert list(found.ranked) == [*methods, "model + item-knn", "model, drafts of text-knn"]
        assert sum(found.settings["blends"]["model + item-knn"].values()) == pytest.approx(1)
        assert found.settings["split"] == {"method": "leave-one-out"}
        assert all(row.questions <= 10 for row in found.rows)
        assert {what for what, _, _ in progress} >= {*methods, "tuning of model + item-knn"}
        assert all(done <= total for _, done, total in progress)

    def test_validation_and_time(self, index, histories):
        split = split_by_time(histories, validation=2, test=4)
        found = evaluate(None, index, split, part="validation")
        assert found.settings["split"]["method"] == "time"
        questions = split.questions("validation")
        ranks = found.ranked["popularity"].ranks(questions.targets)
        row = found.rows[0]
        assert row.method == "popularity"
        assert row.metrics["Recall@10"].mean == pytest.approx((ranks <= 10).mean())

    def test_among_cold_items_only_cold_targets_are_asked(self, index, histories):
        split = split_by_time(histories, validation=1, test=3)
        cold = np.bincount(np.concatenate(split.training), minlength=150) == 0
        blend = [BlendSpec(("text-knn", "item-knn"), drafts=("text-knn",))]
        found = evaluate(None, index, split, text="title", blends=blend, among="cold")
        assert {row.targets for row in found.rows} == {"cold"}
        assert found.rows[0].questions == cold[split.questions("test").targets].sum()
        shown = found.ranked["text-knn"].items
        assert cold[shown[shown >= 0]].all()

    @pytest.mark.parametrize("among", ["all", "cold"])
    def test_removed_items_of_a_live_index_are_no_candidates(self, index, histories, retrievers, among, tmp_path):
        split = split_by_time(histories, validation=1, test=3)
        targets = split.questions("test").targets
        removed = index.item_ids.take(np.unique(targets)[::2]).to_pylist()
        live = hr.LiveIndex.create(tmp_path / "x.live", index)
        live.remove(removed)
        gone = np.isin(index.item_ids.to_numpy(zero_copy_only=False), removed)
        cold = np.bincount(np.concatenate(split.training), minlength=150) == 0
        found = evaluate(retrievers[0], tmp_path / "x.live", split, among=among, beam_width=20)
        asked = ~gone[targets] & (cold[targets] | (among == "all"))
        assert sum(row.questions for row in found.rows if row.targets == found.rows[0].targets) // 3 == asked.sum()
        for ranked in found.ranked.values():
            assert not gone[ranked.items[ranked.items >= 0]].any()

    def test_no_cold_targets(self, index):
        table = pa.table({"user": [1] * 4 + [2] * 2, "item_id": ["t1", "t2", "t3", "t2", "t2", "t3"]})
        known = Histories.from_arrow(table.append_column("timestamp", [range(6)]), index)
        with pytest.raises(ArgumentError, match="no question of the test has a target among the candidates"):
            evaluate(None, index, split_by_time(known, validation=3, test=5), among="cold")

    def test_split_of_a_trained_model(self, index, histories, tmp_path):
        folder = tmp_path / "model"
        new_model("llama").save_pretrained(folder)
        tokenizer().save_pretrained(folder)
        TOKENS.save(folder)
        split = split_by_time(histories, validation=2, test=4)
        pq.write_table(split.to_arrow(), folder / "split.parquet")
        (folder / "training.json").write_text(json.dumps({"split": dict(split.method), "options": {"seed": 4}}))
        found = evaluate(folder, index, histories, users=5)
        assert found.settings["split"] == dict(split.method)
        assert found.settings["models"] == [{"model": str(folder), "options": {"seed": 4}}]
        assert found.settings["versions"]["hedgerow"] == hr.__version__
        with pytest.raises(ArgumentError, match="was trained on another split"):
            evaluate(folder, index, leave_one_out(histories), users=5)
        fewer = pa.table({"user": [1, 1], "item_id": ["t1", "t2"], "timestamp": [1, 2]})
        with pytest.raises(ArgumentError, match="was trained on other histories: 40 users and 200 interactions"):
            evaluate(folder, index, Histories.from_arrow(fewer, index))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"ks": []}, "0 cutoffs"),
            ({"ks": [100]}, "at most beam_width, 50; got 100"),
            ({"blends": [BlendSpec(("model", "item-knn"))]}, "no method 'model' to blend; the methods are popularity"),
            ({"embeddings": np.zeros((150, 2)), "quantizer": "q"}, "not both"),
            ({"part": "train"}, "part must be one of"),
            ({"among": "warm"}, "among must be one of"),
        ],
    )
    def test_refusals(self, index, histories, options, message):
        with pytest.raises(ArgumentError, match=message):
            evaluate(None, index, histories, **options)

    def test_a_blend_of_one_method_twice(self):
        with pytest.raises(ArgumentError, match="'item-knn' is there twice"):
            BlendSpec(("item-knn", "item-knn"))


class TestNovelty:
    def test_shares_of_users(self):
        values = metrics.novelty([[0, 2], [1, -1], [-1, -1]], counts=[3, 1, 0], users=3)
        assert values.tolist() == [1.0, 1.0, 0.0]

    @pytest.mark.parametrize(
        ("items", "counts", "users", "message"),
        [
            ([[3]], [1, 2, 3], 3, "rows from 0 to 2"),
            ([[0]], [4], 3, "from 0 to the number of users"),
            ([0], [1], 1, r"items \[B, k\]"),
            ([[0.5]], [1], 1, "integer items"),
            ([[0]], [1], 0, "users must be a positive integer"),
        ],
    )
    def test_refusals(self, items, counts, users, message):
        with pytest.raises(ArgumentError, match=message):
            metrics.novelty(items, counts, users)
