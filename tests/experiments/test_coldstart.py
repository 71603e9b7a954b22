"""The cold-start experiment: split, batches, model and searches, compared with slow and simple implementations."""

import csv
import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("faiss")
pytest.importorskip("sklearn")

from conftest import DATA  # noqa: E402

from coldstart import convert  # noqa: E402
from coldstart.batches import batch_of  # noqa: E402
from coldstart.combine import evaluated as evaluated_contents  # noqa: E402
from coldstart.combine import rankers_of  # noqa: E402
from coldstart.content import encoded, trained  # noqa: E402
from coldstart.evaluate import Evaluation, evaluate  # noqa: E402
from coldstart.learned import learned_embeddings  # noqa: E402
from coldstart.network import BEGIN, Network, Recipe, Size, offsets  # noqa: E402
from coldstart.report import rows_of, write_csv  # noqa: E402
from coldstart.search import Scoring, Searcher  # noqa: E402
from coldstart.split import Questions, split_of  # noqa: E402
from coldstart.tables import Shop, category, load  # noqa: E402
from coldstart.train import Run, Trainer, train  # noqa: E402

ITEMS, CODEBOOKS, TINY = 120, (8, 6, 4), Size(hidden=16, layers=2, heads=2, dropout=0.0)


@pytest.fixture(scope="module")
def shop() -> Shop:
    random = np.random.default_rng(0)
    histories = [random.choice(ITEMS, random.integers(1, 9), replace=False) for _ in range(300)]
    departments = np.array(["Makeup;Face", "Fragrance;Men's", "Skin Care"])[random.integers(0, 3, ITEMS)]
    texts = [f"item {item};{departments[item]}" for item in range(ITEMS)]
    return Shop([f"id{item}" for item in range(ITEMS)], texts, random.permutation(ITEMS).astype(float), histories)


@pytest.fixture(scope="module")
def split(shop):
    return split_of(shop, 0.1)


@pytest.fixture(scope="module")
def embeddings():
    return np.random.default_rng(1).normal(size=(ITEMS, 24)).astype(np.float32)


@pytest.fixture(scope="module")
def content(embeddings, split):
    return trained(embeddings, split, CODEBOOKS, 0)


@pytest.fixture(scope="module")
def network(content):
    torch.manual_seed(0)
    return Network(content, TINY, Recipe(codebooks=CODEBOOKS)).eval()


@pytest.fixture(scope="module")
def searcher(network, content, split, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    network.exported().save_pretrained(folder)
    return Searcher(folder, content, split.known)


class TestSplit:
    def test_newest_items_are_cold(self, shop, split):
        assert split.cold.sum() == 12
        assert shop.first_seen[split.cold].min() > shop.first_seen[~split.cold].max()

    def test_training_data_has_no_cold_items(self, split):
        for sequences in (split.training, split.validation.histories, split.warm.histories, split.test.histories):
            assert not split.cold[np.concatenate(sequences)].any()
        assert split.cold[split.test.targets].all()
        assert not split.cold[split.warm.targets].any()

    def test_questions_are_last_items_after_warm_items(self, shop, split):
        expected = [
            (history[~split.cold[history]].tolist(), history[-1])
            for history in shop.histories
            if split.cold[history[-1]] and not split.cold[history].all()
        ]
        assert list(zip(map(list, split.test.histories), split.test.targets, strict=True)) == expected
        assert (split.served.targets == split.test.targets).all()
        for whole, warm in zip(split.served.histories, split.test.histories, strict=True):
            assert whole[~split.cold[whole]].tolist() == warm.tolist()

    def test_training_data_has_no_answers_of_warm_users(self, split):
        trained_on = {tuple(sequence.tolist()) for sequence in split.training}
        for asked in (split.warm, split.validation):
            for history, target in zip(asked.histories, asked.targets, strict=True):
                assert (*history.tolist(), target) not in trained_on
                assert len(history) < 2 or tuple(history.tolist()) in trained_on

    def test_tuning_split_has_no_items_of_the_test(self, shop, split):
        tuning = split_of(shop, 0.1, tuning=True)
        assert not tuning.known[split.cold].any()
        assert not (tuning.cold & split.cold).any()
        seen = (*tuning.training, *tuning.test.histories, tuning.test.targets)
        assert not split.cold[np.concatenate(seen)].any()

    def test_sizes_of_the_public_data(self):
        if not (DATA / "amazon_beauty_2014").exists():
            pytest.skip("the tables of Amazon Beauty are not available")
        shop = load(DATA / "amazon_beauty_2014")
        for share, cold, asked in ((0.02, 242, 1337), (0.05, 605, 2902)):
            split = split_of(shop, share)
            assert (split.cold.sum(), len(split.test)) == (cold, asked)


class TestContent:
    def test_quantizer_does_not_depend_on_cold_items(self, embeddings, split, content):
        changed = embeddings.copy()
        changed[split.cold] = 7 * changed[split.cold][::-1]
        retrained = trained(changed, split, CODEBOOKS, 0)
        assert (retrained.sids[~split.cold] == content.sids[~split.cold]).all()
        assert encoded(changed, split, content.quantizer).sids.tolist() == retrained.sids.tolist()

    def test_categories(self):
        assert category("a; b;9.99;Brand;Makeup;Eyes") == "Makeup;Eyes"
        assert category("Makeup") == ""


class TestLearned:
    def test_training_does_not_depend_on_cold_items(self, shop, split, embeddings):
        found = learned_embeddings(shop, split, embeddings, epochs=1)
        assert found.shape[0] == ITEMS
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
        changed = embeddings.copy()
        changed[split.cold] = 7 * changed[split.cold][::-1]
        texts = [text + " new" * bool(cold) for text, cold in zip(shop.texts, split.cold, strict=True)]
        other = Shop(shop.ids, texts, shop.first_seen, shop.histories)
        again = learned_embeddings(other, split, changed, epochs=1)
        np.testing.assert_allclose(again[~split.cold], found[~split.cold], atol=1e-5)

    def test_items_that_users_take_together_come_closer(self):
        # Pairs of words that only histories connect.
        texts = [f"{'abcd'[item % 4] * 3} thing{item}" for item in range(40)]
        random = np.random.default_rng(0)
        histories = [random.permutation(np.arange(40)[np.arange(40) % 4 // 2 == user % 2])[:8] for user in range(400)]
        small = Shop([str(item) for item in range(40)], texts, np.arange(40.0), histories)
        tiny, vectors = split_of(small, 0.1), random.normal(size=(40, 6)).astype(np.float32)

        def difference(found):
            cosines, kind = found @ found.T, np.arange(40) % 4
            together = (kind[:, None] != kind) & (kind[:, None] // 2 == kind // 2)
            apart = kind[:, None] // 2 != kind // 2
            return cosines[together].mean() - cosines[apart].mean()

        before = learned_embeddings(small, tiny, vectors, epochs=0)
        after = learned_embeddings(small, tiny, vectors, epochs=30)
        assert difference(after) > difference(before) + 0.2

    def test_rankers_return_only_cold_items_that_exist(self, shop, embeddings):
        tuning = split_of(shop, 0.1, tuning=True)
        rankers = rankers_of(shop, tuning, embeddings, [np.eye(ITEMS, dtype=np.float32)] * 2)
        found = evaluated_contents(shop, tuning, rankers, {"cold": 0.1})
        assert list(found.ranked) == [*rankers, "text + embedding", "text + embedding + learned"]
        shown = np.unique(found.ranked["text"].items)
        assert set(shown[shown >= 0]) <= set(np.flatnonzero(tuning.cold))
        assert found.rows[0].questions == len(tuning.test)


class TestModel:
    def test_a_branch_equals_a_separate_sequence(self, network, content, split):
        plain = network.exported()
        sequences = [sequence for sequence in split.training if len(sequence) >= 4][:5]
        chosen = np.array([[0, len(sequence) - 1] for sequence in sequences])
        batch = batch_of(sequences, sequences, chosen, content.sids, network.starts)
        with torch.no_grad():
            mask = torch.zeros(batch.seen.shape).masked_fill(~batch.seen, -1e9)[:, None]
            inputs = torch.nn.functional.embedding(batch.tokens, network.inputs())
            hidden = network.core(
                inputs_embeds=inputs, attention_mask=mask, position_ids=batch.positions, use_cache=False
            ).last_hidden_state
            longest, inner = batch.first.shape[1], len(CODEBOOKS) - 1
            for row, sequence in enumerate(sequences):
                for branch, place in enumerate(chosen[row]):
                    sid = content.sids[sequence[place]]
                    ids = [BEGIN, *(network.starts[-1] + sequence[:place]), *(sid + network.starts[:-1])[:-1]]
                    logits = plain(torch.tensor([ids])).logits[0]
                    start = longest + branch * inner
                    states = [hidden[row, place], *hidden[row, start : start + inner]]
                    for level, state in enumerate(states):
                        first, stop = network.starts[level : level + 2]
                        expected = logits[place + level, first:stop]
                        torch.testing.assert_close(network.logits(state, level), expected, atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize("recipe", [Recipe(content=False), Recipe(tied=False), Recipe(prefix_loss=False)])
    def test_loss_decreases_with_every_recipe(self, content, split, recipe):
        torch.manual_seed(0)
        run = Run("full", 0.1, False, 0, "small", 1)
        trainer = Trainer(run, Network(content, TINY, recipe), content, split, torch.device("cpu"))
        trainer.recipe = recipe
        batch = batch_of(
            split.training[:32], split.training[:32], np.zeros((32, 2), int), content.sids, trainer.network.starts
        )
        losses = []
        for _ in range(25):
            loss = trainer.losses(batch).sum()
            trainer.optimiser.zero_grad()
            loss.backward()
            trainer.optimiser.step()
            losses.append(loss.item())
            for group in trainer.optimiser.param_groups:
                group["lr"] = 1e-2
        assert losses[-1] < losses[0] - 0.5


class TestSearch:
    @pytest.mark.parametrize("prior", [0.0, 1.0])
    @pytest.mark.parametrize("normalize", ["codes", "allowed"])
    def test_scores_equal_those_of_each_item_alone(self, searcher, split, content, normalize, prior):
        cold = np.flatnonzero(split.cold)
        questions = Questions(split.test.histories[:4], split.test.targets[:4])
        scoring = Scoring(normalize, prior)
        answers = searcher.search(questions, beam_width=50, scoring=scoring, constraints=searcher.set_of(cold))
        for history, results in zip(questions.histories, answers, strict=True):
            assert sorted(results.item_ids) == cold.tolist()
            for item, score in zip(results.item_ids, results.scores.tolist(), strict=True):
                expected = self.score(searcher, history, content.sids, item, cold, normalize)
                if prior:
                    empty = np.zeros(0, int)
                    expected -= prior * self.score(searcher, empty, content.sids, item, cold, normalize)
                assert score == pytest.approx(expected, abs=2e-3)

    def test_item_prompts_average_the_probabilities(self, searcher, split):
        cold = np.flatnonzero(split.cold)
        fresh, scoring = searcher.set_of(cold), Scoring("allowed", 1.0, item_prompts=True)
        options = {"beam_width": 50, "scoring": scoring, "constraints": fresh}
        mixed = list(searcher.mixed(split.test, **options))
        for history, items in zip(split.test.histories, mixed, strict=True):
            single_items = Questions([history[[place]] for place in range(len(history))], history)
            totals = np.zeros(ITEMS)
            for results in searcher.search(single_items, **options):
                totals[results.item_ids] += np.exp(results.scores)
            assert sorted(items) == cold.tolist()
            assert (np.diff(totals[items]) <= 1e-6).all()

    def score(self, searcher, history, sids, item, cold, normalize):
        starts, total = offsets(CODEBOOKS), 0.0
        ids = [BEGIN, *(starts[-1] + history).tolist(), *(sids[item] + starts[:-1]).tolist()]
        with torch.inference_mode():
            logits = searcher.retriever.model(torch.tensor([ids])).logits[0].double().numpy()
        for level, code in enumerate(sids[item]):
            level_logits = logits[len(history) + level, starts[level] : starts[level + 1]]
            siblings = {sids[other, level] for other in cold if (sids[other, :level] == sids[item, :level]).all()}
            normalized = level_logits[sorted(siblings)] if normalize == "allowed" else level_logits
            total += level_logits[code] - np.log(np.exp(normalized).sum())
        return total


@pytest.mark.filterwarnings("ignore:a codebook of 4,096 codes for")
def test_pipeline_from_tables_to_results(shop, tmp_path, monkeypatch):
    """Run all programs in order, on generated data."""
    monkeypatch.setattr("coldstart.evaluate.BEAM_WIDTHS", (4, 12))
    monkeypatch.setattr("coldstart.evaluate.BEAMS", 12)
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    columns = {"item": range(ITEMS), "text": shop.texts, "first_ts": [*shop.first_seen[:-1].astype(int), None]}
    pq.write_table(pa.table(columns), data / "items.parquet")
    events = [(user, item, pos) for user, taken in enumerate(shop.histories) for pos, item in enumerate(taken)]
    rows = dict(zip(("user", "item", "pos"), zip(*reversed(events), strict=True), strict=True))
    pq.write_table(
        pa.table({name: list(map(int, column)) for name, column in rows.items()}), data / "interactions.parquet"
    )
    assert [history.tolist() for history in load(data).histories] == [history.tolist() for history in shop.histories]
    out.mkdir()
    np.save(out / "data.npy", np.random.default_rng(1).normal(size=(ITEMS, 24)).astype(np.float32))
    folder = train(Run("full", 0.1, False, 0, "small", 1), data, out)
    evaluate(folder, data, out)
    facts = json.loads((folder / "ranks.json").read_text())
    assert facts["cold_items"] == 12
    assert facts["facts"]["cold|cold set, codes|12"][0] == 1.0
    ranks = np.load(folder / "ranks.npz")
    assert ranks["cold|cold set, codes|12"].max() <= 12
    assert len(ranks["cold|free|12"]) == len(Evaluation(folder, data, out).split.test)
    rows = rows_of(out)
    chance = next(row for row in rows if row.method == "random order")
    assert chance.metrics["Recall@1"].mean == pytest.approx(1 / 12)
    write_csv(rows, tmp_path / "results.csv")
    with (tmp_path / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 8 * len(rows)
    assert {line["seeds"] for line in lines} == {"0", ""}


def test_convert_creates_the_two_tables(tmp_path):
    meta = [
        {"asin": "B", "title": "Soap; blue", "price": 3.5, "brand": "Acme", "categories": [["Beauty", "Bath & Body"]]},
        {"asin": "A", "title": "Brush", "categories": [["Beauty", "Makeup", "Face"]]},
        {"asin": "C", "title": "not reviewed", "categories": [["Beauty"]]},
    ]
    reviews = [("u1", "B", 200), ("u2", "A", 50), ("u1", "A", 100), ("u1", "D", 200)]
    with gzip.open(tmp_path / "meta.json.gz", "wt") as file:
        file.writelines(f"{row!r}\n" for row in meta)
    with gzip.open(tmp_path / "reviews.json.gz", "wt") as file:
        names = ("reviewerID", "asin", "unixReviewTime")
        file.writelines(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in reviews)
    taken = convert.reviews(tmp_path / "reviews.json.gz")
    items, events = convert.tables(taken, convert.texts(tmp_path / "meta.json.gz", {"A", "B", "D"}))
    assert items.column("text").to_pylist() == ["Brush;Makeup;Face", "Soap; blue;3.5;Acme;Bath & Body", ""]
    assert items.column("first_ts").to_pylist() == [50, 200, 200]
    rows = zip(*(events.column(name).to_pylist() for name in events.column_names), strict=True)
    assert list(rows) == [(0, 0, 0, 100), (0, 1, 1, 200), (0, 2, 2, 200), (1, 0, 0, 50)]
