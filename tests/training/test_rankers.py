"""Baselines and blends, compared with slow and simple code."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.errors import ArgumentError, MissingDependencyError

pytest.importorskip("torch")
pytest.importorskip("implicit")
pytest.importorskip("sklearn")

from hedgerow.training import (
    Blend,
    Questions,
    Ranked,
    ScoreRanker,
    content_knn,
    item_knn,
    popularity,
    text_vectors,
)
from hedgerow.training.blending import scaled
from hedgerow.training.model_ranker import distinct_items, ordered
from hedgerow.training.rankers import best

ITEMS = 30


@pytest.fixture(scope="module")
def training():
    random = np.random.default_rng(0)
    return [random.choice(ITEMS - 5, random.integers(1, 8), replace=False) for _ in range(80)]


def questions_of(count=6, seed=1):
    random = np.random.default_rng(seed)
    histories = [random.choice(ITEMS - 5, random.integers(1, 6), replace=False) for _ in range(count)]
    targets = np.array([random.choice(np.setdiff1d(np.arange(ITEMS), history)) for history in histories])
    return Questions(histories, targets, np.arange(count))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(-2, 3), min_size=6, max_size=6), min_size=1, max_size=4), st.integers(1, 8))
def test_best_takes_the_first_of_equal_scores(rows, k):
    scores = np.array(rows, np.float32)
    found = best(scores, k)
    for row, items, values in zip(rows, found.items, found.scores, strict=True):
        expected = [item for item in sorted(range(6), key=lambda item: (-row[item], item)) if row[item] > 0][:k]
        assert items.tolist() == expected + [-1] * (k - len(expected))
        assert values.tolist() == [row[item] for item in expected] + [-np.inf] * (k - len(expected))


def test_popularity_counts_interactions_and_excludes_the_history(training):
    questions = questions_of()
    found = popularity(training, ITEMS).rank(questions, 5)
    counts = [sum(item in items for items in training) for item in range(ITEMS)]
    for history, items in zip(questions.histories, found.items, strict=True):
        expected = sorted(range(ITEMS), key=lambda item: (-counts[item], item))
        assert items.tolist() == [item for item in expected if item not in history and counts[item]][:5]


def test_item_knn_sums_decayed_similarities(training):
    questions = questions_of()
    ranker = item_knn(training, ITEMS)
    every = np.arange(ITEMS)
    single = Questions([np.array([item]) for item in every], every, every)
    similar = ranker.scores(single, np.tile(every, (ITEMS, 1)))
    assert (np.diag(similar) == 0).all()
    assert not similar[:, ITEMS - 5 :].any()
    shared = np.array([[sum(a in t and b in t for t in training) for b in every] for a in every])
    np.fill_diagonal(shared, 0)
    assert ((similar > 0) == (shared > 0)).all()
    scores = ranker.scores(questions, np.tile(every, (len(questions), 1)))
    for history, row in zip(questions.histories, scores, strict=True):
        weights = 0.8 ** np.arange(len(history))[::-1]
        np.testing.assert_allclose(row, weights @ similar[history], rtol=1e-5)


@pytest.mark.parametrize("power", [1, 3])
def test_content_knn_sums_decayed_powers_of_cosines(power):
    vectors = np.random.default_rng(0).normal(size=(ITEMS, 4)).astype(np.float32)
    questions = questions_of()
    scores = content_knn(vectors, power=power).scores(questions, np.tile(np.arange(ITEMS), (len(questions), 1)))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for history, row in zip(questions.histories, scores, strict=True):
        expected = 0.8 ** np.arange(len(history))[::-1] @ np.maximum(unit[history] @ unit.T, 0) ** power
        np.testing.assert_allclose(row, expected, atol=1e-5)


def test_text_vectors_and_dense_vectors_give_the_same_scores():
    texts = ["red lipstick", "red nail polish", "shampoo for dry hair", "", "dry shampoo"]
    vectors = text_vectors(texts)
    questions = Questions([np.array([0]), np.array([2, 4])], np.array([1, 1]), np.array([0, 1]))
    sparse, dense = content_knn(vectors), content_knn(vectors.toarray())
    assert (
        sparse.rank(questions, 3).items.tolist()
        == dense.rank(questions, 3).items.tolist()
        == [[1, -1, -1], [-1, -1, -1]]
    )
    with pytest.raises(ArgumentError, match="no words"):
        text_vectors(["", "."])


@pytest.mark.parametrize(
    ("module", "use", "package"),
    [
        ("implicit.nearest_neighbours", lambda: item_knn([np.array([0, 1])], 2), "implicit"),
        ("sklearn.feature_extraction.text", lambda: text_vectors(["a word"]), "scikit-learn"),
    ],
)
def test_missing_packages(monkeypatch, module, use, package):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=rf"needs the package {package}.*hedgerow\[evaluate\]"):
        use()


def test_candidates_limit_the_items():
    questions = questions_of()
    among = np.arange(ITEMS) >= ITEMS - 4
    ranker = content_knn(np.random.default_rng(0).random((ITEMS, 4)))
    found = ranker.rank(questions, 10, among=among)
    assert (found.items[:, 4:] == -1).all()
    assert {*found.items[:, :4].ravel().tolist()} <= {*range(ITEMS - 4, ITEMS)}


def test_a_ranker_of_another_shape_is_refused():
    ranker = ScoreRanker(ITEMS, lambda histories: np.ones((len(histories), ITEMS + 1)))
    with pytest.raises(ArgumentError, match=r"score must return an array of shape \(6, 30\)"):
        ranker.rank(questions_of(), 3)


def test_ranks_of_lists():
    ranked = Ranked(np.array([[5, 2, -1], [1, -1, -1]]), np.zeros((2, 3)))
    assert ranked.ranks([2, 5]).tolist() == [2, np.inf]


def test_distinct_items_of_drafts():
    drafts = [np.array([[3, 1, -1], [4, 4, 4]]), np.array([[1, 7, 3], [-1, -1, -1]])]
    assert distinct_items(drafts).tolist() == [[1, 3, 7], [4, -1, -1]]
    found = ordered(np.array([[1, 3, 7]]), np.array([[0.5, -np.inf, 0.5]]), 4)
    assert found.items.tolist() == [[1, 7, -1, -1]]


def test_scaled_scores():
    exists = np.array([[True, True, True, False], [True, True, False, False]])
    scores = np.array([[-4.0, -2.0, -np.inf, 9.0], [3.0, 3.0, 0.0, 0.0]])
    assert scaled(scores, exists).tolist() == [[0, 1, 0, 0], [1, 1, 0, 0]]


class TestBlend:
    def rankers(self, training):
        vectors = np.random.default_rng(0).random((ITEMS, 4))
        return {
            "popular": popularity(training, ITEMS),
            "content": content_knn(vectors),
            "knn": item_knn(training, ITEMS),
        }

    def test_a_single_weight_is_that_ranker(self, training):
        questions, rankers = questions_of(), self.rankers(training)
        for name, ranker in rankers.items():
            blend = Blend(rankers, {name: 2.0})
            assert blend.rank(questions, 10).items.tolist() == ranker.rank(questions, 10).items.tolist()

    def test_scores_are_weighted_sums_over_all_drafts(self, training):
        questions, rankers = questions_of(), self.rankers(training)
        weights = {"popular": 0.2, "content": 0.5, "knn": 0.3}
        found = Blend(rankers, weights, depth=ITEMS).rank(questions, ITEMS)
        for row, history in enumerate(questions.histories):
            one = Questions([history], questions.targets[[row]], np.zeros(1, int))
            drafts = sorted({i for r in rankers.values() for i in r.rank(one, ITEMS).items[0].tolist()} - {-1})
            total = np.zeros(len(drafts))
            for name, weight in weights.items():
                scores = rankers[name].scores(one, np.array([drafts]))[0]
                total += weight * (scores - scores.min()) / (scores.max() - scores.min())
            expected = [drafts[place] for place in np.argsort(-total, kind="stable")]
            assert found.items[row, : len(drafts)].tolist() == expected

    def test_drafts_of_one_are_ordered_by_another(self, training):
        questions, rankers = questions_of(), self.rankers(training)
        found = Blend(rankers, {"popular": 1.0}, drafts=["content"], depth=3).rank(questions, 5)
        drafts = rankers["content"].rank(questions, 3).items
        counts = popularity(training, ITEMS).scores(questions, drafts)
        for row in range(len(questions)):
            assert sorted(found.items[row, :3].tolist()) == sorted(drafts[row].tolist())
            ranks = {item: -count for item, count in zip(drafts[row].tolist(), counts[row].tolist(), strict=True)}
            assert found.items[row, :3].tolist() == sorted(ranks, key=lambda item: (ranks[item], item))
        assert (found.items[:, 3:] == -1).all()

    def test_tuning_finds_the_ranker_that_is_right(self, training):
        questions, rankers = questions_of(20), self.rankers(training)
        answers = rankers["content"].rank(questions, 1).items[:, 0]
        asked = Questions(questions.histories, answers, questions.users)
        tuned = Blend.tuned(rankers, asked)
        assert (tuned.rank(asked, 1).items[:, 0] == answers).mean() == 1
        assert tuned.weights["content"] == max(tuned.weights.values())

    def test_tuning_is_the_best_of_all_weights(self, training):
        questions, rankers = questions_of(40), self.rankers(training)
        two = {name: rankers[name] for name in ("popular", "knn")}

        def ndcg(weight):
            blend = Blend(two, {"popular": 1 - weight, "knn": weight}, drafts=tuple(two))
            ranks = blend.rank(questions, 10).ranks(questions.targets)
            return np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0).mean()

        values = {weight / 10: ndcg(weight / 10) for weight in range(11)}
        tuned = Blend.tuned(two, questions)
        assert values[round(tuned.weights["knn"], 1)] == pytest.approx(max(values.values()))

    @pytest.mark.parametrize(
        ("weights", "message"),
        [
            ({"other": 1.0}, "no ranker 'other'; the rankers are popular, content, knn"),
            ({"popular": -1.0}, "weight of popular"),
            ({"popular": float("nan")}, "weight of popular"),
            ({"popular": 0.0}, "at least one ranker"),
        ],
    )
    def test_refusals(self, training, weights, message):
        with pytest.raises(ArgumentError, match=message):
            Blend(self.rankers(training), weights)

    def test_tuning_needs_questions(self, training):
        with pytest.raises(ArgumentError, match="0 questions"):
            Blend.tuned(self.rankers(training), Questions([], np.zeros(0, int), np.zeros(0, int)))
